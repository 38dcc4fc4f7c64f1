"""The count tests that filters share: at least, at most or exactly n, ever or within a window."""

from collections.abc import Callable
from typing import Final, Protocol

from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.counters import CountWindow
from streams.profiles.row import User
from streams.segments.filter import ChangesAt, Compiled, Test
from streams.segments.series import CountSeries
from streams.times import format_duration, format_time

LIMITS: Final = ("at_least", "at_most", "exactly")


class Limits(Protocol):
    """The parameters that every counting filter has."""

    @property
    def at_least(self) -> int | None:
        """The lowest count that passes."""

    @property
    def at_most(self) -> int | None:
        """The highest count that passes."""

    @property
    def exactly(self) -> int | None:
        """The only count that passes."""


def bounds(limits: Limits) -> tuple[int, int | None]:
    """The lowest and highest count that passes (None: no highest); without a limit, at least one.

    Raises:
        BadDefinition: more than one limit is given.
    """
    given = [n for n in (limits.at_least, limits.at_most, limits.exactly) if n is not None]
    if len(given) > 1:
        raise BadDefinition("give one of at_least, at_most and exactly; for a range combine two filters with all")
    if limits.exactly is not None:
        return limits.exactly, limits.exactly
    if limits.at_most is not None:
        return 0, limits.at_most
    return (1 if limits.at_least is None else limits.at_least), None


def compile_total(low: int, high: int | None, total: Callable[[User], int], change: str) -> Compiled:
    """A test of a lifetime count; time never changes it."""

    def test(user: User, now_ms: int) -> bool:
        count = total(user)
        return low <= count and (high is None or count <= high)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {"holds": test(user, now_ms), "count": total(user)}

    return Compiled(test, (change,), explain)


def compile_series_total(low: int, high: int | None, series: CountSeries) -> Compiled:
    """A test of the lifetime count of a series, such as events with certain properties."""

    def total(user: User) -> int:
        window = user.counts.get(series.key)
        return window.total if window else 0

    compiled = compile_total(low, high, total, series.change)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        window = user.counts.get(series.key)
        unsure_ms = window.unsure_until_ms if window else 0
        error = f"those up to {format_time(unsure_ms)} are not counted" if unsure_ms else "exact"
        return {**compiled.explain(user, now_ms), "error": error}

    return Compiled(compiled.test, compiled.reads, explain, series=(series,))


def compile_window(low: int, high: int | None, series: CountSeries, within_ms: int) -> Compiled:
    """A test of the count in (now − within, now], exact to the millisecond.

    The n-th newest occurrence decides "at least n": it leaves the window at its time + within.
    """
    test, changes_at = _window_test(low, high, series.key, within_ms)
    newest = max(low, 0 if high is None else high + 1)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        window = user.counts.get(series.key)
        change = changes_at(user, now_ms)
        return {
            "holds": test(user, now_ms),
            "count": window.within(now_ms, within_ms) if window else 0,
            "counted_up_to": series.keep,
            "within": format_duration(within_ms),
            "changes_at": format_time(change) if change is not None else None,
            **_exactness(window, series, now_ms, within_ms, newest),
        }

    return Compiled(test, (series.change,), explain, changes_at, (series,))


def _exactness(
    window: CountWindow | None, series: CountSeries, now_ms: int, within_ms: int, newest: int
) -> dict[str, JSONValue]:
    """How far the count can be relied on, and from when on it is exact."""
    if window is None or window.is_exact(now_ms, within_ms, newest):
        return {"error": "exact"}
    until = format_time(window.unsure_until_ms)
    error = f"those up to {until} are known by the day: they leave up to 24 h late, or later before 32 active days"
    if series.matches is not None:
        error = f"those up to {until} are not counted: the definition came later"
    return {"error": error, "exact_from": format_time(window.unsure_until_ms + within_ms)}


def _window_test(low: int, high: int | None, key: str, within_ms: int) -> tuple[Test, ChangesAt]:
    if low and high is None:
        return _at_least(low, key, within_ms)

    def leaves_at(user: User, now_ms: int, n: int) -> int | None:
        """When the n-th newest leaves the window, None if it is outside already or there is none."""
        window = user.counts.get(key)
        if window is None or not 0 < n <= len(window.times_ms):
            return None
        end_ms = window.times_ms[-n] + within_ms
        return end_ms if end_ms > now_ms else None

    def test(user: User, now_ms: int) -> bool:
        if low and leaves_at(user, now_ms, low) is None:
            return False
        return high is None or leaves_at(user, now_ms, high + 1) is None

    def changes_at(user: User, now_ms: int) -> int | None:
        """The (high + 1)-th is older than the low-th: it leaves first and may bring the count into range."""
        if high is not None:
            too_many_until = leaves_at(user, now_ms, high + 1)
            if too_many_until is not None:
                return too_many_until
        return leaves_at(user, now_ms, low) if low else None

    return test, changes_at


def _at_least(low: int, key: str, within_ms: int) -> tuple[Test, ChangesAt]:
    """The most frequent window, at least n within W, spelt out: one lookup and one comparison."""

    def test(user: User, now_ms: int) -> bool:
        window = user.counts.get(key)
        if window is None or len(window.times_ms) < low:
            return False
        return window.times_ms[-low] + within_ms > now_ms

    def changes_at(user: User, now_ms: int) -> int | None:
        window = user.counts.get(key)
        if window is None or len(window.times_ms) < low:
            return None
        end_ms = window.times_ms[-low] + within_ms
        return end_ms if end_ms > now_ms else None

    return test, changes_at
