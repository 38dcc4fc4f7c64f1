"""Schedules compiled: when a campaign goes to its audience, at one moment or at each user's own."""

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgspec

from streams.campaigns.recurrence import Recurrence
from streams.codec import to_json
from streams.definitions import BestTime, Rate, Schedule
from streams.errors import BadDefinition
from streams.profiles.hours import peak_of
from streams.profiles.row import OccurrenceId, User
from streams.times import DAY_MS, HOUR_MS, SECOND_MS, has_offset, parse_time
from streams.zones import EASTMOST_MS, WESTMOST_MS, local_of, moment_of, zone_of

LATE_MS_MAX: Final = HOUR_MS
"""A user whose own time is longer past when the schedule begins is passed over; below that it is sent at once."""

RATE_MAX: Final = 1_000_000
LATENESS_SHARE: Final = 20
"""A rate is kept to a twentieth below what is allowed, which is what a message may be later than its slot."""

UTC_NAME: Final = "UTC"
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Occurrence(msgspec.Struct, frozen=True, array_like=True):
    """One time that a schedule comes round: it begins at `at_ms`, for what the clocks show as `local_ms`.

    `plan` is the schedule's digest; empty in positions from before that was written.
    """

    at_ms: int
    local_ms: int
    plan: str = ""

    @property
    def id(self) -> OccurrenceId | None:
        """What stands for it in rows, wherever and whenever it began; None where its schedule is not known."""
        return OccurrenceId(self.plan, self.local_ms) if self.plan else None


class Plan(msgspec.Struct, frozen=True):
    """A schedule ready to be asked.

    Attributes:
        digest: what stands for the schedule; a change of it is a new schedule.
        kind: `at` goes to everyone at once, `local` at a time on each user's clocks, `best` at each user's hour.
        after: a time of local clocks -> the next at which the schedule comes round.
        zone: of the schedule; for `local` and `best` of users without one.
        slot_us: microseconds between two messages of all partitions together; 0 where there is no rate.
        late_us: how much later than its slot a message may go.
    """

    digest: str
    kind: str
    after: Callable[[int], int | None]
    zone: str
    fallback_ms: int = 0
    from_ms: int = 0
    to_ms: int = DAY_MS
    slot_us: int = 0
    late_us: int = 0

    def next_after(self, since_ms: int, local_ms: int) -> Occurrence | None:
        """The next occurrence behind the one at `local_ms` that is not over at `since_ms`.

        One that has begun by then, and is not over in every zone, begins the millisecond after.
        """
        while (found := self.after(local_ms)) is not None:
            if self.kind == "at":
                at_ms = moment_of(found, self.zone)
                if at_ms > since_ms:
                    return Occurrence(at_ms, found, self.digest)
            else:
                occurrence = Occurrence(max(found - EASTMOST_MS, since_ms + 1), found, self.digest)
                if self.over_ms(occurrence) > since_ms:
                    return occurrence
            local_ms = found
        return None

    def due_of(self, user: User, occurrence: Occurrence) -> int | None:
        """When a user of the audience gets the message; None where that is more than an hour before it began."""
        if self.kind == "at":
            return occurrence.at_ms
        zone = user.attributes.get("time_zone")
        name = zone if isinstance(zone, str) and zone_of(zone) is not None else self.zone
        local_ms = occurrence.local_ms
        if self.kind == "best":
            # The hours of a user without a zone are kept by UTC, and the window is of the schedule's clocks.
            ahead_ms = 0 if name == zone else _ahead_of_utc(local_ms, name)
            peak_ms = peak_of(user, occurrence.at_ms, self.from_ms, self.to_ms, ahead_ms)
            local_ms += self.fallback_ms if peak_ms is None else peak_ms
        due_ms = moment_of(local_ms, name)
        return due_ms if due_ms >= occurrence.at_ms - LATE_MS_MAX else None

    def over_ms(self, occurrence: Occurrence) -> int:
        """When it has been everybody's own time."""
        if self.kind == "at":
            return occurrence.at_ms
        return occurrence.local_ms + WESTMOST_MS + (DAY_MS if self.kind == "best" else 0)


def _ahead_of_utc(day_ms: int, name: str) -> int:
    """How far the clocks of a zone are ahead of UTC on a day; where that changes in the night, as they are at noon."""
    noon_ms = day_ms + DAY_MS // 2
    return noon_ms - moment_of(noon_ms, name)


def compile_schedule(schedule: Schedule) -> Plan:
    """Compile a schedule. Raises BadDefinition, naming the key."""
    if (schedule.at is None) == (schedule.rrule is None):
        raise BadDefinition("schedule: give exactly one of at, rrule")
    if (schedule.start is None) != (schedule.rrule is None):
        raise BadDefinition("schedule.start: goes with rrule, which counts from it; give both or neither")
    if schedule.local_time and schedule.best_time is not None:
        raise BadDefinition("schedule: local_time and best_time exclude each other")
    if zone_of(schedule.time_zone) is None:
        raise BadDefinition(f"schedule.time_zone: no zone {schedule.time_zone!r}; write one such as Europe/Berlin")
    kind = "best" if schedule.best_time is not None else "local" if schedule.local_time else "at"
    if schedule.rate is not None and kind != "at":
        raise BadDefinition("schedule.rate: goes with a schedule of one moment, not with local_time or best_time")
    first_ms, zone = _first(schedule, kind)
    times = Recurrence(schedule.rrule, first_ms, zone).after if schedule.rrule is not None else _once(first_ms)
    slot_us, late_us = _slots(schedule.rate)
    plan = Plan(_digest(schedule), kind, times, zone, slot_us=slot_us, late_us=late_us)
    return plan if schedule.best_time is None else _at_best(plan, schedule.best_time)


def _digest(schedule: Schedule) -> str:
    """What stands for when it comes round: the rate may change without beginning anew."""
    return blake2b(to_json(msgspec.structs.replace(schedule, rate=None)), digest_size=8).hexdigest()


def _once(first_ms: int) -> Callable[[int], int | None]:
    return lambda local_ms: first_ms if local_ms < first_ms else None


def _first(schedule: Schedule, kind: str) -> tuple[int, str]:
    """The first time as local clocks show it, and of which zone."""
    key, text = ("at", schedule.at) if schedule.at is not None else ("start", schedule.start)
    assert text is not None
    where = f"schedule.{key}"
    if kind == "best" and _DAY.fullmatch(text) is None:
        raise BadDefinition(f"{where}: {text!r} is no day; with best_time write one such as 2026-12-01")
    try:
        time_ms, is_moment = parse_time(text), has_offset(text)
    except ValueError as error:
        raise BadDefinition(f"{where}: {error}") from None
    if not is_moment:
        return time_ms, schedule.time_zone
    if kind == "local":
        raise BadDefinition(f"{where}: {text} has an offset; with local_time it is what each user's clocks show")
    return (time_ms, UTC_NAME) if key == "at" else (local_of(time_ms, schedule.time_zone), schedule.time_zone)


def _slots(rate: Rate | None) -> tuple[int, int]:
    """The time between two messages, and how late one may be, in microseconds.

    Never more than allowed in any second (or minute): of the slots in it and the lateness before it, as many as that.
    """
    if rate is None:
        return 0, 0
    given = {1: rate.per_second, 60: rate.per_minute}
    slots = []
    for seconds, count in given.items():
        if count is None:
            continue
        window_us = seconds * 1_000_000
        late_us = min(window_us // LATENESS_SHARE, 1_000_000)
        slots.append((-(-(window_us + late_us) // count), late_us))
    if not slots:
        raise BadDefinition("schedule.rate: give per_second, per_minute or both")
    return max(slot for slot, _ in slots), min(late for _, late in slots)


def _at_best(plan: Plan, best: BestTime) -> Plan:
    from_ms, to_ms = _clock("from", best.from_), _clock("to", best.to)
    if from_ms == to_ms:
        raise BadDefinition("schedule.best_time: from and to are the same; leave both out for the whole day")
    fallback_ms = _clock("fallback", best.fallback)
    return msgspec.structs.replace(plan, fallback_ms=fallback_ms, from_ms=from_ms, to_ms=to_ms)


def _clock(key: str, text: str) -> int:
    if key == "to" and text == "24:00":
        return DAY_MS
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise BadDefinition(f'schedule.best_time.{key}: {text!r} is no time of day; write "10:00"')
    return (int(match[1]) * 60 + int(match[2])) * 60 * SECOND_MS
