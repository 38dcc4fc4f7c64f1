"""Time zones: from what local clocks show to moments, by the time zone data of this program's own version.

The zones come from the package `tzdata`, never from the machine, so that two workers with the same release give
the same moments.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from streams.times import DAY_MS, HOUR_MS, SECOND_MS, YEAR_1_MS, YEAR_9999_END_MS, milliseconds

EASTMOST_MS: Final = 14 * HOUR_MS
"""How far ahead of UTC the first zone on earth to reach a time is."""

WESTMOST_MS: Final = 12 * HOUR_MS
"""How far behind UTC the last one is."""

_FIRST_MS: Final = YEAR_1_MS + DAY_MS
_LAST_MS: Final = YEAR_9999_END_MS - DAY_MS
_ZONES_MAX: Final = 1_024
_MOMENTS_MAX: Final = 8_192
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (what local clocks show has no zone)
_DATA: Final = files("tzdata")


@lru_cache(1)
def zone_names() -> frozenset[str]:
    """Every name of a zone."""
    return frozenset(_DATA.joinpath("zones").read_text(encoding="utf-8").split())


@lru_cache(_ZONES_MAX)
def zone_of(name: str) -> ZoneInfo | None:
    """The zone of an IANA name such as `Europe/Berlin`; None where there is none."""
    if name not in zone_names():
        return None
    with _DATA.joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@lru_cache(_MOMENTS_MAX)
def moment_of(local_ms: int, name: str) -> int:
    """When the clocks of a zone show a time, which is given as milliseconds as if it were UTC.

    A time that the clocks skip gives the first moment after the gap; one that they show twice the first of the two.
    Raises LookupError for an unknown zone.
    """
    zone = zone_of(name)
    if zone is None:
        raise LookupError(name)
    local = _EPOCH + timedelta(milliseconds=local_ms)
    first, second = (milliseconds(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if first <= second:  # shown once, or twice
        return first
    return _end_of_gap(second, first, zone)


def _end_of_gap(before_ms: int, after_ms: int, zone: ZoneInfo) -> int:
    """The moment between the two at which the clocks are put forward."""
    before, after = before_ms // SECOND_MS, after_ms // SECOND_MS
    old = _offset(before * SECOND_MS, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle * SECOND_MS, zone) == old:
            before = middle
        else:
            after = middle
    return after * SECOND_MS


def local_of(moment_ms: int, name: str) -> int:
    """What the clocks of a zone show at a moment, as milliseconds as if it were UTC; of an unknown zone, in UTC."""
    zone = zone_of(name)
    return moment_ms if zone is None else moment_ms + _offset(moment_ms, zone) // timedelta(milliseconds=1)


def _offset(moment_ms: int, zone: ZoneInfo) -> timedelta:
    inside_ms = min(max(moment_ms, _FIRST_MS), _LAST_MS)  # a clock that shows the year 0 has no datetime
    offset = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=inside_ms)).astimezone(zone).utcoffset()
    assert offset is not None
    return offset
