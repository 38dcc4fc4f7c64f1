"""Did a custom event so often, ever or within a window, with certain properties or any."""

from collections.abc import Callable
from typing import Final

import msgspec

from streams.codec import to_json
from streams.events import JSONValue
from streams.profiles.counters import CountWindow, count_once
from streams.profiles.row import User
from streams.segments.condition import compile_where
from streams.segments.counting import LIMITS, bounds, compile_series_total, compile_total, compile_window
from streams.segments.filter import Compiled, Count, Duration, Filter, Name, window_ms
from streams.segments.series import CountSeries


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The event's name, one limit (at least 1 without), and optionally a window and properties."""

    name: Name
    at_least: Count | None = None
    at_most: Count | None = None
    exactly: Count | None = None
    within: Duration | None = None
    where: dict[str, JSONValue] | None = None


def compile_(params: Params) -> Compiled:
    """Compile to one or two dict lookups per test."""
    low, high = bounds(params)
    change = f"event:{params.name}"
    within = window_ms(params.within)
    matches = compile_where(params.where)
    if within is None and matches is None:
        return compile_total(low, high, _counter_of(params.name), change)
    key = _key_of(params.name) if matches is None else f"{change}?{to_json(params.where).decode()}"
    if within is None:
        return compile_series_total(low, high, CountSeries(key, change, 0, matches))
    keep = max(low, 0 if high is None else high + 1)
    return compile_window(low, high, CountSeries(key, change, keep, matches), within)


def _key_of(name: str) -> str:
    """The key of an event whatever its properties.

    Rows keep keys, so all stay as they are but those that another event with certain properties has, too.
    """
    _, *tails = name.split("?{")
    if any(_is_where("{" + "?{".join(tails[at:])) for at in range(len(tails))):
        return f"event-named:{name}"
    return f"event:{name}"


def _is_where(text: str) -> bool:
    try:
        return bool(msgspec.json.decode(text, type=dict[str, JSONValue]))
    except msgspec.DecodeError:
        return False


def _counter_of(name: str) -> Callable[[User], int]:
    def count(user: User) -> int:
        counter = user.events.get(name)
        return 0 if counter is None else counter.count

    return count


_DID: Final = User(1, 1, 0, 5_000, events={"like": count_once(4_000)}, counts={"event:like": CountWindow(1, [4_000])})

FILTER: Final = Filter(
    name="event",
    label="Did custom event",
    params=Params,
    compile=compile_,
    at_most_one=LIMITS,
    examples=(
        ({"name": "like"}, _DID, 5_000, True),
        ({"name": "like", "at_least": 2}, _DID, 5_000, False),
        ({"name": "like", "within": "1s"}, _DID, 4_999, True),
        ({"name": "like", "within": "1s"}, _DID, 5_000, False),
        ({"name": "share", "at_most": 0}, _DID, 5_000, True),
        ({"name": "share", "exactly": 0, "within": "1d"}, _DID, 5_000, True),
    ),
)
