"""What a row can say of the past for a series that nobody kept until now."""

from streams.profiles.counters import AmountWindow, Counter, CountWindow
from streams.profiles.row import User
from streams.segments.series import AmountSeries, CountSeries, Series
from streams.times import DAY_MS


def begin_series(user: User, series: Series, now_ms: int, *, was_kept: bool) -> bool:
    """Let a row keep a series from now on; what the row knows of its past stands in it, and how surely.

    - Counts of an event, of purchases or of a product: all of them, the first and the last to the
      millisecond, the others by UTC day, at the end of their day: they leave a window up to 24 h late, those
      older than the newest 32 active days later still.
    - Counts of events with certain properties: nothing, for properties of the past are not kept.
    - Amounts: what was spent in one instant; otherwise nothing, for only the sum of all time is kept.

    Args:
        user: the row, changed in place.
        series: what to keep.
        now_ms: the time of the decision.
        was_kept: the series was kept before, but less of it.

    Returns:
        Whether the row changed.
    """
    if isinstance(series, AmountSeries):
        return _begin_amounts(user, series, now_ms, was_kept=was_kept)
    counter = _counter_of(user, series.change)
    if counter is None:
        return False
    if was_kept:
        return _lengthen_counts(user, series, counter)
    if series.matches is not None:
        user.counts[series.key] = CountWindow(0, [], counter.last_ms)
        return True
    times_ms = newest_times(counter, series.keep)
    unsure_ms = 0 if counter.first_ms == counter.last_ms else _unsure_until(times_ms[:-1], counter)
    user.counts[series.key] = CountWindow(counter.count, times_ms, unsure_ms)
    return True


def _counter_of(user: User, change: str) -> Counter | None:
    kind, _, name = change.partition(":")
    if kind == "event":
        return user.events.get(name)
    return user.products.get(name) if kind == "product" else user.purchases


def _lengthen_counts(user: User, series: CountSeries, counter: Counter) -> bool:
    """Put older times before those that are kept, where there are any."""
    window = user.counts.get(series.key)
    if window is None or len(window.times_ms) >= min(window.total, series.keep):
        return False  # none ever, or nothing is missing
    known = window.times_ms
    if series.matches is not None:
        window.unsure_until_ms = max(window.unsure_until_ms, known[0] if known else counter.last_ms)
        return True
    times_ms = newest_times(counter, series.keep)
    older = times_ms[: len(times_ms) - len(known)]
    if known:
        older = [min(time_ms, known[0]) for time_ms in older]
    window.unsure_until_ms = max(window.unsure_until_ms, _unsure_until(older, counter))
    window.times_ms = older + known
    return bool(older)


def newest_times(counter: Counter, keep: int) -> list[int]:
    """The newest `keep` times of a counter, ascending, none earlier than it was: at the end of its UTC day."""
    last_ms, days = counter.last_ms, counter.days
    if counter.first_ms == last_ms:
        return [last_ms] * min(counter.count, keep)
    times_ms: list[int] = []
    for at in range(len(days) - 2, -2, -2):
        end_ms = min((days[at] + 1) * DAY_MS - 1, last_ms)
        times_ms += [end_ms] * min(days[at + 1], keep - len(times_ms))
    older = counter.count - sum(days[1::2])
    times_ms += [days[0] * DAY_MS - 1] * min(older, keep - len(times_ms))
    times_ms.reverse()
    if times_ms and len(times_ms) == counter.count:
        times_ms[0] = counter.first_ms
    return times_ms


def _unsure_until(estimated_ms: list[int], counter: Counter) -> int:
    """The newest of the estimated times that is no more than an estimate; 0 for none."""
    is_first = bool(estimated_ms) and estimated_ms[0] == counter.first_ms
    estimates = estimated_ms[1:] if is_first else estimated_ms
    return estimates[-1] if estimates else 0


def _begin_amounts(user: User, series: AmountSeries, now_ms: int, *, was_kept: bool) -> bool:
    purchases, amount = user.purchases, user.money.get(series.change.partition(":")[2])
    if purchases is None or amount is None:
        return False
    window = user.amounts.get(series.key)
    if was_kept and window is not None:
        if window.times_ms and window.times_ms[0] <= purchases.first_ms:
            return False  # it reaches back to the first purchase of all
        unsure_ms = window.times_ms[0] - 1 if window.times_ms else purchases.last_ms
        if unsure_ms <= max(window.unsure_until_ms, now_ms - series.keep_ms):
            return False
        window.unsure_until_ms = unsure_ms
        return True
    if purchases.last_ms <= now_ms - series.keep_ms:
        return False  # all of it is too old to count
    if purchases.first_ms == purchases.last_ms:
        user.amounts[series.key] = AmountWindow([purchases.last_ms], [amount])
    else:
        user.amounts[series.key] = AmountWindow([], [], 0, purchases.last_ms)
    return True
