"""Recurrence rules of RFC 5545: the times on local clocks at which a rule fires, found once and remembered."""

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from dateutil.rrule import rrule, rrulestr

from streams.errors import BadDefinition
from streams.times import DAY_MS, format_duration
from streams.zones import local_of

FREQUENCIES: Final = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY")
RULE_CHARS_MAX: Final = 500
YEARS_MAX: Final = 10
"""A rule ends so long after its start; a new definition begins it anew."""

GAP_MS_MIN: Final = 15 * 60_000
"""A rule fires no more often: each time costs a look at every user."""

_LOOKED_AT: Final = 1_000
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (what local clocks show has no zone)
_PROBE: Final = datetime(9_900, 1, 1)  # noqa: DTZ001 (late, so that looking for what never comes ends soon)
_INNER: Final = ("YEARLY", "MONTHLY", "WEEKLY")


class Recurrence:
    """When a rule fires, as milliseconds of local clocks, each time later than the one before."""

    def __init__(self, text: str, start_ms: int, zone: str) -> None:
        """Read a rule such as `FREQ=WEEKLY;BYDAY=MO` that counts from `start_ms` of a zone's clocks.

        Raises:
            BadDefinition: it is none, or cannot be used.
        """
        parts = _parts(text)
        self._until_ms = min(_until(parts.pop("UNTIL", ""), zone), start_ms + YEARS_MAX * 366 * DAY_MS)
        count = parts.pop("COUNT", "")
        self._left = int(count) if count.isdecimal() else None
        if count and not self._left:
            raise BadDefinition(f"rrule: COUNT={count} is no number of times")
        self._source = _times(parts, start_ms)
        self._known: list[int] = []
        self._is_over = False
        self._check(text)

    def after(self, local_ms: int) -> int | None:
        """The first time after one; None: it fires no more."""
        at = bisect_right(self._known, local_ms)
        while at == len(self._known) and self._find():
            at += self._known[-1] <= local_ms
        return self._known[at] if at < len(self._known) else None

    def _find(self) -> bool:
        """Bring one more time into what is known; False: there is none."""
        if self._is_over:
            return False
        found = next(self._source, None) if self._left is None or len(self._known) < self._left else None
        if found is None or found > self._until_ms:
            self._is_over = True
            return False
        self._known.append(found)
        return True

    def _check(self, text: str) -> None:
        while len(self._known) < _LOOKED_AT and self._find():
            if len(self._known) > 1 and self._known[-1] - self._known[-2] < GAP_MS_MIN:
                raise BadDefinition(f"rrule: {text} fires more often than every {format_duration(GAP_MS_MIN)}")
        if not self._known:
            raise BadDefinition(f"rrule: {text} does not fire within {YEARS_MAX} years of its start")


def _parts(text: str) -> dict[str, str]:
    """The parts of a rule by name; a start or a zone of its own is refused, being said beside it."""
    if len(text) > RULE_CHARS_MAX or "\n" in text:
        raise BadDefinition(f"rrule: give one line of at most {RULE_CHARS_MAX} characters, as FREQ=WEEKLY;BYDAY=MO")
    parts: dict[str, str] = {}
    for part in text.upper().removeprefix("RRULE:").strip(";").split(";"):
        name, sign, value = (word.strip() for word in part.partition("="))
        if not sign or not value or name in parts:
            raise BadDefinition(f"rrule: {part!r} is no part of a rule, or stands there twice; as FREQ=WEEKLY;BYDAY=MO")
        parts[name] = value
    if parts.get("FREQ") not in FREQUENCIES:
        raise BadDefinition(f"rrule: FREQ is one of {', '.join(FREQUENCIES)}")
    interval = parts.get("INTERVAL", "1")
    if not interval.isdecimal() or not int(interval):
        raise BadDefinition(f"rrule: INTERVAL={interval} is no number of steps; write one of at least 1")
    if "DTSTART" in parts:
        raise BadDefinition("rrule: write DTSTART as the schedule's `start`")
    if "BYSETPOS" in parts and parts["FREQ"] not in _INNER:
        raise BadDefinition(f"rrule: BYSETPOS goes with FREQ={', '.join(_INNER)}")
    return parts


def _until(text: str, zone: str) -> int:
    """UNTIL as a time of a zone's clocks, to the end of a day that is given without a time; with Z it is UTC."""
    if not text:
        return 1 << 62
    try:
        until_ms = _milliseconds(datetime.strptime(text.removesuffix("Z"), "%Y%m%dT%H%M%S"))  # noqa: DTZ007
    except ValueError:
        return _end_of_day(text)
    return local_of(until_ms, zone) if text.endswith("Z") else until_ms


def _end_of_day(text: str) -> int:
    try:
        return _milliseconds(datetime.strptime(text, "%Y%m%d")) + DAY_MS - 1  # noqa: DTZ007 (as the clocks show)
    except ValueError:
        raise BadDefinition(f"rrule: UNTIL={text} is no time; as 20271231T235959") from None


def _times(parts: dict[str, str], start_ms: int) -> Iterator[int]:
    rule = _rule(parts, _EPOCH + timedelta(milliseconds=start_ms))
    # Looking for what never comes, dateutil goes through every day to the year 9999: so ask for one year at a time.
    yearly = {name: value for name, value in parts.items() if name not in ("INTERVAL", "BYSETPOS")}
    if not list(islice(_rule({**yearly, "FREQ": "YEARLY"}, _PROBE), 1)):
        return iter(())
    return (_milliseconds(moment) for moment in rule)


def _rule(parts: dict[str, str], start: datetime) -> rrule:
    text = ";".join(f"{name}={value}" for name, value in parts.items())
    try:
        found = rrulestr(text, dtstart=start)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise BadDefinition(f"rrule: {text} is no rule ({error})") from None
    assert isinstance(found, rrule)
    return found


def _milliseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return since.days * DAY_MS + since.seconds * 1_000
