"""The filters about time: they read no clock, and know no local time zone."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from dateutil import parser

from channels.render.limits import DATE_CHARS_MAX, DATE_FORMAT_CHARS_MAX
from channels.render.values import is_missing, to_text

_EPOCH: Final = re.compile(r"\d{1,12}")
_DIRECTIVE: Final = re.compile(r"%([-_0^#]*)(\d*)(.)", re.DOTALL)
_NO_DATE: Final = datetime(1970, 1, 1, tzinfo=UTC)

# What dateutil raises for a text that is no time, by trial.
_NONSENSE: Final = (ValueError, OverflowError, TypeError, AttributeError, LookupError)

# The names that Ruby's Time.parse knows; every other one is ambiguous.
_OFFSETS_H: Final = {"EDT": -4, "EST": -5, "CDT": -5, "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8}


class Unfit(ValueError):
    """A value or an argument that a filter cannot use; the text never holds the value."""


def date(value: object, format: object = None, *, now_s: float | None = None) -> str:
    """Return a time in a format of strftime, in the zone that the value names, otherwise in UTC.

    Seconds since 1970 are a time, as number or digits, and so are the words `now` and `today`. What is
    no time comes back as it is, as in Liquid. Besides strftime's own, `%s` gives seconds and `%L`
    milliseconds.

    Raises:
        Unfit: the format is too long, or `now` is asked of a message that was given none.
    """
    moment = to_moment(value, now_s)
    pattern = to_text(format) if not is_missing(format) else ""
    if moment is None or not pattern:
        return to_text(value if moment is None else moment)
    if len(pattern) > DATE_FORMAT_CHARS_MAX:
        raise Unfit(f"a format may have {DATE_FORMAT_CHARS_MAX} characters")
    return _formatted(moment, pattern)


def time_zone(value: object, zone: object = None, *, now_s: float | None = None) -> object:
    """Return a time as it is on the clocks of a zone such as `Europe/Berlin`.

    A missing zone leaves the time as it is; what is no time comes back as it is.

    Raises:
        Unfit: there is no such zone.
    """
    moment = to_moment(value, now_s)
    if moment is None or is_missing(zone) or zone == "":
        return value if moment is None else moment
    found = _zone(to_text(zone))
    if found is None:
        raise Unfit("no such time zone: use a name such as Europe/Berlin")
    return moment.astimezone(found)


def to_moment(value: object, now_s: float | None) -> datetime | None:
    """Return a value as a time with a zone, or None where it is none.

    Raises:
        Unfit: the value is `now` and no time was given.
    """
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _from_epoch(value)
    if not isinstance(value, str) or not value or len(value) > DATE_CHARS_MAX:
        return None
    if value in {"now", "today"}:
        if now_s is None:
            raise Unfit("the message asks for the time, but RenderContext.now_s is not given")
        return _from_epoch(now_s)
    return _from_epoch(int(value)) if _EPOCH.fullmatch(value) else _parsed(value)


def _formatted(moment: datetime, pattern: str) -> str:
    """Return strftime with the directives that Ruby has and the platform lacks or takes for local time."""

    def directive(found: re.Match[str]) -> str:
        flags, width, letter = found.groups()
        if len(width) > 2:  # noqa: PLR2004, two digits
            raise Unfit("a width may have two digits")
        own = {"s": str(int(moment.timestamp())), "L": f"{moment.microsecond // 1000:03}"}
        return own.get(letter, f"%{flags}{width}{letter}")

    return moment.strftime(_DIRECTIVE.sub(directive, pattern))


def _from_epoch(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> datetime | None:
    """Return a text as a time; without a date it is on 1970-01-01, without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parser.parse(text, default=_NO_DATE, tzinfos=_named_zone)
        except _NONSENSE:
            return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _named_zone(name: str | None, offset_s: int | None) -> tzinfo:
    """Return the zone of an offset, or of a name that Ruby knows too; otherwise UTC."""
    if offset_s is None:
        offset_s = _OFFSETS_H.get(name or "", 0) * 3600
    return timezone(timedelta(seconds=offset_s))


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
