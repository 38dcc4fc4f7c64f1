"""When in the day a user is there: a small histogram of half hours by the user's own clocks, of which the past fades.

Stored as bytes: two of the week of the last fading, then one for each half hour of the day.
"""

from typing import Final

from streams.profiles.row import User
from streams.times import DAY_MS
from streams.zones import local_of

BINS: Final = 48
BIN_MS: Final = DAY_MS // BINS
WEIGHT: Final = 16
"""What one activity adds; in whole numbers, so that the same log gives the same bytes."""

FADE_OF_256: Final = 215
"""What is left of a week's weights a week later: half of them after four weeks."""

THIN: Final = 3 * WEIGHT
"""Below so much, which is three recent activities, nobody can say when the user is there."""

WEEKS_MAX: Final = 32
_WEEK_MS: Final = 7 * DAY_MS
_LEAST, _MOST = 0, 255
_REACH: Final = 2  # half hours to each side that tell where within the hour the peak is


def note_activity(user: User, time_ms: int) -> None:
    """Count something that the user did by its hour; what is late counts as of now. Costs 2 to 5 µs."""
    week = max(0, time_ms) // _WEEK_MS
    hours = user.hours
    if hours is None:
        bins = bytearray(BINS)
    else:
        known = int.from_bytes(hours[:2], "big")
        bins = _faded(hours, week - known)
        week = max(week, known)
    zone = user.attributes.get("time_zone")
    at = local_of(time_ms, zone if isinstance(zone, str) else "") % DAY_MS // BIN_MS
    if bins[at] + WEIGHT > _MOST:
        for place in range(BINS):
            bins[place] >>= 1
    bins[at] += WEIGHT
    user.hours = week.to_bytes(2, "big") + bins


def join_hours(user: User, other: User) -> None:
    """Count what another row knows of the same person, too; the later week's fading holds for both."""
    if other.hours is None or user.hours is None:
        user.hours = other.hours or user.hours
        return
    weeks = [int.from_bytes(hours[:2], "big") for hours in (user.hours, other.hours)]
    week = max(weeks)
    faded = [_faded(hours, week - since) for hours, since in zip((user.hours, other.hours), weeks, strict=True)]
    bins = [ours + theirs for ours, theirs in zip(*faded, strict=True)]
    if max(bins) > _MOST:
        bins = [weight >> 1 for weight in bins]
    user.hours = week.to_bytes(2, "big") + bytes(bins)


def _faded(hours: bytes, weeks: int) -> bytearray:
    bins = bytearray(hours[2:])
    for _ in range(min(weeks, WEEKS_MAX)):
        for place in range(BINS):
            bins[place] = bins[place] * FADE_OF_256 >> 8
    return bins


def peak_of(user: User, now_ms: int, from_ms: int = 0, to_ms: int = DAY_MS, ahead_ms: int = 0) -> int | None:
    """The time of day, in milliseconds by the user's clocks, around which the user is there most.

    Only times in [from_ms, to_ms) count; from after to means over midnight. None where too little is known.
    The middle of the strongest two half hours that follow each other, drawn to what lies beside them. Of a user whose
    hours were kept by UTC these are times of other clocks, which are `ahead_ms` of it.
    """
    hours = user.hours
    if hours is None:
        return None
    bins = _faded(hours, max(0, now_ms) // _WEEK_MS - int.from_bytes(hours[:2], "big"))
    if sum(bins) < THIN:
        return None
    best, best_weight = -1, _LEAST
    for at in range(BINS):
        weight = bins[at - 1] + 2 * bins[at] + bins[(at + 1) % BINS]
        middle_ms = (at * BIN_MS + BIN_MS // 2 + ahead_ms) % DAY_MS
        if weight > best_weight and _is_within(middle_ms, from_ms, to_ms):
            best, best_weight = at, weight
    if best < 0:
        return None
    around = range(-_REACH, _REACH + 1)
    total = sum(bins[(best + step) % BINS] for step in around)
    drawn = sum(step * bins[(best + step) % BINS] for step in around)
    begin_ms = (best * BIN_MS + ahead_ms) % DAY_MS
    found_ms = (begin_ms + BIN_MS // 2 + drawn * BIN_MS // total) % DAY_MS if total else begin_ms
    if _is_within(found_ms, from_ms, to_ms):
        return found_ms
    return begin_ms if _is_within(begin_ms, from_ms, to_ms) else from_ms  # which lies within that half hour


def _is_within(time_ms: int, from_ms: int, to_ms: int) -> bool:
    if from_ms < to_ms:
        return from_ms <= time_ms < to_ms
    return time_ms >= from_ms or time_ms < to_ms
