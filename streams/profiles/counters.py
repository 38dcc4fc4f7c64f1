"""Counts and sums of one user: lifetime totals, exact windows for live definitions, day buckets beyond."""

from bisect import bisect_right, insort
from decimal import Decimal
from typing import Final

import msgspec

from streams.times import DAY_MS

DAY_BUCKETS_MAX: Final = 32
AMOUNTS_EXACT_MAX: Final = 256


class Counter(msgspec.Struct, array_like=True, gc=False):
    """How often, first and last, and the newest active UTC days as [day, count, day, count, …]."""

    count: int
    first_ms: int
    last_ms: int
    days: list[int]

    def add(self, time_ms: int, quantity: int = 1) -> None:
        """Count `quantity` occurrences at a time; times may come in any order."""
        self.count += quantity
        if time_ms > self.last_ms:
            self.last_ms = time_ms
        elif time_ms < self.first_ms:
            self.first_ms = time_ms
        day, days = time_ms // DAY_MS, self.days
        if days[-2] == day:
            days[-1] += quantity
        else:
            _add_to_day(days, day, quantity)

    def join(self, other: "Counter") -> None:
        """Count what another counter has counted, as if it had been counted here."""
        self.count += other.count
        self.first_ms = min(self.first_ms, other.first_ms)
        self.last_ms = max(self.last_ms, other.last_ms)
        days = dict(zip(self.days[::2], self.days[1::2], strict=True))
        for day, count in zip(other.days[::2], other.days[1::2], strict=True):
            days[day] = days.get(day, 0) + count
        self.days = [part for day in sorted(days)[-DAY_BUCKETS_MAX:] for part in (day, days[day])]

    def in_days(self, now_ms: int, days: int) -> int:
        """Occurrences in the UTC calendar day of `now_ms` and the `days - 1` before it.

        Exact for calendar days; as an answer for a sliding window it errs by what fell on its first
        day. Days beyond the newest 32 active ones are forgotten.
        """
        oldest = now_ms // DAY_MS - days + 1
        return sum(self.days[at + 1] for at in range(0, len(self.days), 2) if self.days[at] >= oldest)


def count_once(time_ms: int, quantity: int = 1) -> Counter:
    """The counter of something seen for the first time."""
    return Counter(quantity, time_ms, time_ms, [time_ms // DAY_MS, quantity])


def _add_to_day(days: list[int], day: int, quantity: int) -> None:
    """Keep the buckets in ascending order of day, at most `DAY_BUCKETS_MAX` of them."""
    at = len(days)
    while at and days[at - 2] > day:
        at -= 2
    if at and days[at - 2] == day:
        days[at - 1] += quantity
        return
    days[at:at] = (day, quantity)
    if len(days) > 2 * DAY_BUCKETS_MAX:
        del days[:2]


class CountWindow(msgspec.Struct, array_like=True, gc=False):
    """Occurrences of one series: all ever, and the newest times in ascending order.

    For the question "at least n within W" the newest n + 1 times are enough, whatever W is. Of what
    happened up to `unsure_until_ms` not everything is known to the millisecond, or at all, because nobody
    kept it then (`streams/profiles/past.py`); 0 means everything is exact.
    """

    total: int
    times_ms: list[int]
    unsure_until_ms: int = 0

    def add(self, time_ms: int, quantity: int, keep: int) -> None:
        """Count `quantity` occurrences at a time, keeping the newest `keep` times."""
        self.total += quantity
        times = self.times_ms
        if times and time_ms < times[-1]:
            for _ in range(min(quantity, keep)):
                insort(times, time_ms)
        else:
            times += [time_ms] * min(quantity, keep)
        if len(times) > keep:
            del times[: len(times) - keep]

    def join(self, other: "CountWindow", keep: int) -> None:
        """Count what another window of the series has counted, as if it had been counted here."""
        self.total += other.total
        self.times_ms = sorted([*self.times_ms, *other.times_ms])[-keep:]
        self.unsure_until_ms = max(self.unsure_until_ms, other.unsure_until_ms)

    def within(self, now_ms: int, within_ms: int) -> int:
        """Occurrences in (now − within, now]; exact up to the number of times kept."""
        return len(self.times_ms) - bisect_right(self.times_ms, now_ms - within_ms)

    def is_exact(self, now_ms: int, within_ms: int, newest: int) -> bool:
        """Whether the newest `newest` occurrences in (now − within, now] are surely known to the millisecond."""
        if self.unsure_until_ms <= now_ms - within_ms:
            return True
        return 0 < newest <= len(self.times_ms) and self.times_ms[-newest] > self.unsure_until_ms


class AmountWindow(msgspec.Struct, array_like=True, gc=False):
    """Amounts of money by time, ascending, as far back as the longest live window reaches.

    Exact to the millisecond for the newest entries. Beyond `AMOUNTS_EXACT_MAX` entries the oldest are
    merged per UTC day at the time of the day's last amount: such a day leaves a window whole, up to
    24 h late. `merged_until_ms` says where that begins; 0 means everything is exact. Amounts up to
    `unsure_until_ms` may be missing, because nobody kept them then.
    """

    times_ms: list[int]
    amounts: list[Decimal]
    merged_until_ms: int = 0
    unsure_until_ms: int = 0

    def add(self, time_ms: int, amount: Decimal, now_ms: int, keep_ms: int) -> None:
        """Add an amount at a time and forget what no live window can reach at `now_ms`."""
        times = self.times_ms
        at = bisect_right(times, time_ms)
        if at and times[at - 1] == time_ms:
            self.amounts[at - 1] += amount
        else:
            times.insert(at, time_ms)
            self.amounts.insert(at, amount)
        gone = bisect_right(times, now_ms - keep_ms)
        if gone:
            del times[:gone], self.amounts[:gone]
        if len(times) > AMOUNTS_EXACT_MAX:
            self._merge_oldest()

    def join(self, other: "AmountWindow", now_ms: int, keep_ms: int) -> None:
        """Add the amounts of another window of the series."""
        for time_ms, amount in zip(other.times_ms, other.amounts, strict=True):
            self.add(time_ms, amount, now_ms, keep_ms)
        self.merged_until_ms = max(self.merged_until_ms, other.merged_until_ms)
        self.unsure_until_ms = max(self.unsure_until_ms, other.unsure_until_ms)

    def _merge_oldest(self) -> None:
        """Merge the older half of the entries per UTC day."""
        half = len(self.times_ms) // 2
        times: list[int] = []
        amounts: list[Decimal] = []
        for time_ms, amount in zip(self.times_ms[:half], self.amounts[:half], strict=True):
            if times and times[-1] // DAY_MS == time_ms // DAY_MS:
                times[-1] = time_ms
                amounts[-1] += amount
            else:
                times.append(time_ms)
                amounts.append(amount)
        self.merged_until_ms = self.times_ms[half - 1]
        self.times_ms[:half] = times
        self.amounts[:half] = amounts

    def within(self, now_ms: int, within_ms: int) -> Decimal:
        """The sum over (now − within, now]."""
        return sum(self.amounts[bisect_right(self.times_ms, now_ms - within_ms) :], Decimal(0))

    def oldest_within(self, now_ms: int, within_ms: int) -> int | None:
        """The time of the oldest amount in (now − within, now], None when there is none."""
        at = bisect_right(self.times_ms, now_ms - within_ms)
        return self.times_ms[at] if at < len(self.times_ms) else None
