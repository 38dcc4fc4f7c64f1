"""What a filter is, and what compiling one gives."""

from collections.abc import Callable, Iterable
from typing import Annotated, Final, TypeAlias

import msgspec

from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.row import User
from streams.segments.series import Series
from streams.times import DAY_MS, parse_duration

WINDOW_MAX_MS: Final = 730 * DAY_MS
COUNT_MAX: Final = 1_000

Test: TypeAlias = Callable[[User, int], bool]
ChangesAt: TypeAlias = Callable[[User, int], int | None]
Explain: TypeAlias = Callable[[User, int], dict[str, JSONValue]]
Duration = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\d{1,9}[dhms]( \d{1,9}[dhms])*$",
        description="Numbers of days (86,400 s each), hours, minutes and seconds.",
        examples=["90d", "1d 12h"],
    ),
]
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Compiled(msgspec.Struct, frozen=True):
    """A predicate ready to be asked, often and cheaply.

    Attributes:
        test: (row, now_ms) -> does it hold?
        reads: the names of changes after which it must be asked again, sorted.
        changes_at: (row, now_ms) -> the first millisecond after now at which time alone could change the
            answer, or None; may be early, never late. None as a whole: time never changes it.
        explain: (row, now_ms) -> its verdict and what it was compared with, for people.
        series: what rows must keep for it.
        segments: the segments it refers to, sorted.
    """

    test: Test
    reads: tuple[str, ...]
    explain: Explain
    changes_at: ChangesAt | None = None
    series: tuple[Series, ...] = ()
    segments: tuple[str, ...] = ()


class Filter(msgspec.Struct, frozen=True):
    """One kind of filter: a name, the type of its parameters, and how to compile them.

    `compile` is called once per place in a definition and raises BadDefinition with a sentence.
    `examples` are (parameters, row, now_ms, expected) for the contract suite and the manual. Of the
    parameters named in `exactly_one`, `compile` takes exactly one, of those in `at_most_one` at most one.
    """

    name: str
    label: str
    params: type
    compile: Callable[[JSONValue], Compiled]
    examples: tuple[tuple[JSONValue, User, int, bool], ...] = ()
    exactly_one: tuple[str, ...] = ()
    at_most_one: tuple[str, ...] = ()


def window_ms(within: str | None) -> int | None:
    """The window's length; raises BadDefinition for zero or more than 730 days."""
    if within is None:
        return None
    length = parse_duration(within)
    if not 0 < length <= WINDOW_MAX_MS:
        raise BadDefinition(f"within: {within} is not between 1s and {WINDOW_MAX_MS // DAY_MS}d")
    return length


def earliest(times: Iterable[int | None]) -> int | None:
    """The smallest of the times that are not None."""
    return min((time for time in times if time is not None), default=None)
