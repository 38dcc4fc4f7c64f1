"""Whether the reader of a partition keeps up: OK, WARN, STALL or STOP, from a sliding window instead of a threshold."""

from collections import deque
from itertools import combinations, pairwise
from math import sqrt
from typing import Final, Literal

import msgspec

Status = Literal["OK", "WARN", "STALL", "STOP"]
STATUSES: Final[tuple[Status, ...]] = ("OK", "WARN", "STALL", "STOP")

SAMPLE_MS: Final = 2_000
WINDOW_SAMPLES: Final = 15
WINDOW_MS: Final = SAMPLE_MS * WINDOW_SAMPLES
TREND_Z: Final = 3.3
"""How sure a rising trend must be: one in two thousand windows of mere noise looks so steep."""

RETENTION_WARN: Final = 0.5
"""A reader whose next record has lived so much of its topic's retention is warned about."""


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One look at a partition: the reader's position and the log's start and end, all offsets.

    `oldest_ms` is the append time of the first record not yet processed; None when there is none or nobody knows.
    """

    at_ms: int
    position: int
    end: int
    start: int = 0
    oldest_ms: int | None = None

    @property
    def lag(self) -> int:
        """Records not yet processed."""
        return max(0, self.end - self.position)


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """A status, since when it holds, and why, as the end of the sentence that begins with the partition's name."""

    status: Status
    since_ms: int
    why: str


class Window:
    """The newest samples of one partition, and the verdict on them. It knows no clock: `judge` is given the time."""

    def __init__(self, retention_ms: int | None = None) -> None:
        """`retention_ms`: how long the topic keeps a record; None for ever."""
        self.retention_ms = retention_ms
        self._samples: deque[Sample] = deque(maxlen=WINDOW_SAMPLES + 1)
        self._moved_ms = 0
        self._empty_ms = 0
        self._verdict: Verdict | None = None

    @property
    def newest(self) -> Sample | None:
        """The newest sample; None before the first."""
        return self._samples[-1] if self._samples else None

    def add(self, sample: Sample) -> None:
        """Take a sample, the last word on its millisecond; a clock that stepped back starts the window anew."""
        if self._samples and self._samples[-1].at_ms == sample.at_ms:
            self._samples.pop()
        last = self.newest
        if last is None or sample.at_ms < last.at_ms or sample.position < last.position:
            self._samples.clear()
            self._moved_ms = self._empty_ms = sample.at_ms
        elif sample.position != last.position:
            self._moved_ms = sample.at_ms
        if not sample.lag or (last is not None and not last.lag):
            self._moved_ms = self._empty_ms = sample.at_ms
        self._samples.append(sample)

    def hear_end(self, end: int) -> None:
        """The log goes on while nobody says where the reader is: only the newest sample's end moves."""
        if self._samples:
            self._samples[-1] = msgspec.structs.replace(self._samples[-1], end=max(end, self._samples[-1].end))

    def judge(self, now_ms: int) -> Verdict:
        """The verdict at a time; its `since_ms` stays while the status does."""
        status, since_ms, why = self._look(now_ms)
        before = self._verdict
        if before is not None and before.status == status:
            since_ms = min(since_ms, before.since_ms)
        self._verdict = Verdict(status, since_ms, why)
        return self._verdict

    def _look(self, now_ms: int) -> tuple[Status, int, str]:
        """Burrow's rules in order of gravity, and what retention is about to take."""
        newest = self.newest
        if newest is None:
            return "OK", now_ms, "has not been looked at yet"
        if newest.position < newest.start:
            return "STOP", newest.at_ms, f"{newest.start - newest.position} records are gone: retention overtook it"
        if now_ms - newest.at_ms >= WINDOW_MS:
            return "STOP", newest.at_ms, f"nobody reads it; {newest.lag} records waited when it was last heard of"
        if newest.lag and now_ms - self._moved_ms >= WINDOW_MS:
            return "STALL", self._moved_ms, f"{newest.lag} records wait and none is processed"
        if newest.lag and (why := self._retention(newest)):
            return "WARN", now_ms, why
        if newest.lag and now_ms - self._empty_ms >= WINDOW_MS and self._is_growing():
            return "WARN", self._empty_ms, f"{newest.lag} records wait, and more arrive than are processed"
        return "OK", now_ms, f"{newest.lag} records wait, and it keeps up" if newest.lag else "everything is processed"

    def _retention(self, newest: Sample) -> str:
        """Why retention is about to overtake the reader; nothing if it is not."""
        behind_ms = self.behind_ms(newest.at_ms)
        if self.retention_ms is not None and behind_ms >= RETENTION_WARN * self.retention_ms:
            return f"its next record is kept for {(self.retention_ms - behind_ms) // 60_000} minutes more"
        step = max((later.start - earlier.start for earlier, later in pairwise(self._samples)), default=0)
        if step and newest.position - newest.start < step:
            return "retention takes the records that it reads next"
        return ""

    def _is_growing(self) -> bool:
        """Whether lag never fell in a full window, or rose by a trend that chance does not explain (Mann-Kendall)."""
        lags = [sample.lag for sample in self._samples]
        count = len(lags)
        if count <= WINDOW_SAMPLES:
            return False
        if all(later >= earlier for earlier, later in pairwise(lags)):
            return True
        rises = sum((later > earlier) - (later < earlier) for earlier, later in combinations(lags, 2))
        return rises / sqrt(count * (count - 1) * (2 * count + 5) / 18) > TREND_Z

    def behind_ms(self, now_ms: int) -> int:
        """How old the oldest record not yet processed is; 0 when there is none.

        By the record's own append time, where known; else since the window first knew of it.
        """
        newest = self.newest
        if newest is None or not newest.lag:
            return 0
        if newest.oldest_ms is not None:
            return max(0, now_ms - newest.oldest_ms)
        known_ms = next(each.at_ms for each in self._samples if each.end > newest.position)
        return max(0, now_ms - min(known_ms, newest.at_ms))

    def headroom_ms(self, now_ms: int) -> int | None:
        """How long the next record is still kept; None where retention has no end, or nothing waits."""
        newest = self.newest
        if self.retention_ms is None or newest is None:
            return None
        return self.retention_ms - self.behind_ms(now_ms)


def worst(statuses: list[Status]) -> Status:
    """The gravest of some; OK of none."""
    return max(statuses, key=STATUSES.index, default="OK")
