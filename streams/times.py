"""Times and durations as text, and as whole milliseconds of the Unix epoch (UTC)."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
SECOND_MS: Final = 1_000
YEAR_1_MS: Final = -62_135_596_800_000
YEAR_9999_END_MS: Final = 253_402_300_799_999

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_UTC: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (without a zone, for texts that add their own Z)
_FORMATTED_MAX: Final = 1_024
_UNITS_S: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(\d{1,9})([dhms])")
_FALLBACK_FORMATS: Final = (
    "%Y-%m-%dT%H:%M:%S:%f%z",
    "%Y-%m-%dT%H:%M:%S:%fZ",
    "%m/%d/%Y",
    "%a %m %d %H:%M:%S.%z %Y",
)


def parse_time(text: str) -> int:
    """Milliseconds of a time as Braze accepts it: ISO 8601 and its listed variants; no offset means UTC.

    Raises:
        ValueError: the text is no time, or in UTC it lies outside the years 1 to 9999.
    """
    time_ms = milliseconds(_parse(text))
    if not YEAR_1_MS <= time_ms <= YEAR_9999_END_MS:
        raise ValueError(f"{text!r} lies outside the years 1 to 9999 in UTC")
    return time_ms


def has_offset(text: str) -> bool:
    """Whether a time says its own offset, in any way that `parse_time` reads. Raises ValueError if it is no time."""
    return _parse(text).tzinfo is not None


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970 of a moment; one without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - _EPOCH
    return since.days * DAY_MS + since.seconds * SECOND_MS + since.microseconds // 1_000


def _parse(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        for pattern in _FALLBACK_FORMATS:
            try:
                moment = datetime.strptime(text, pattern)  # noqa: DTZ007 (no offset is UTC, added by the caller)
            except ValueError:
                continue
            return moment.replace(tzinfo=UTC) if pattern.endswith("Z") else moment
    raise ValueError(f"{text!r} is not a time; write ISO 8601, such as 2026-01-31T12:00:00Z")


def format_time(time_ms: int) -> str:
    """ISO 8601 with milliseconds and Z; years 1 to 9999. Recent seconds are remembered: decisions share them."""
    second, rest_ms = divmod(time_ms, SECOND_MS)
    return f"{_second_text(second)}.{rest_ms:03d}Z"


@lru_cache(_FORMATTED_MAX)
def _second_text(second: int) -> str:
    return (_EPOCH_UTC + timedelta(seconds=second)).isoformat(timespec="seconds")


def hour_of(time_ms: int) -> str:
    """The UTC hour as `YYYY-MM-DD-HH`, the date key of export files."""
    return (_EPOCH_UTC + timedelta(milliseconds=time_ms)).isoformat("-", "hours")


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as `90d`, `1h 30m` or `0s`; a day has 86,400 s.

    Raises:
        ValueError: the text is no duration.
    """
    total_s = 0
    parts = text.split()
    for part in parts:
        match = _DURATION.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r} is not a duration; write for example 90d, 12h, 30m, 1s or '1d 12h'")
        total_s += int(match[1]) * _UNITS_S[match[2]]
    if not parts:
        raise ValueError("an empty text is not a duration; write for example 90d")
    return total_s * SECOND_MS


def format_duration(duration_ms: int) -> str:
    """The shortest text that `parse_duration` reads back, to the second."""
    rest = duration_ms // SECOND_MS
    parts = []
    for unit, size in _UNITS_S.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"
