"""At which moment a schedule's texts are: their offsets, windows of the day, and rules that have no end."""

import pytest

from streams.campaigns.schedule import Plan, compile_schedule
from streams.definitions import Schedule
from streams.errors import BadDefinition
from streams.fanouts import FIRST_LOCAL_MS
from streams.times import format_time


def moments(plan: Plan, count: int = 10) -> list[str]:
    """When the plan comes round, so many times at most."""
    found: list[str] = []
    local_ms = FIRST_LOCAL_MS
    while len(found) < count and (coming := plan.next_after(0, local_ms)) is not None:
        found.append(format_time(coming.at_ms)[:16])
        local_ms = coming.local_ms
    return found


OFFSETS = [
    ("2026-12-01 09:00:00+01", "Europe/Berlin", "2026-12-01T08:00"),
    ("2026-12-01 09:00:00+01:00", "Europe/Berlin", "2026-12-01T08:00"),
    ("2026-12-01T09:00:00+0100", "UTC", "2026-12-01T08:00"),
    ("2026-12-01 09:00:00-05", "America/New_York", "2026-12-01T14:00"),
    ("2026-12-01T09:00-05", "Europe/Berlin", "2026-12-01T14:00"),
    ("2026-12-01T09:00:00Z", "Europe/Berlin", "2026-12-01T09:00"),
    ("2026-12-01T09:00:00:000z", "Europe/Berlin", "2026-12-01T09:00"),
    ("2026-12-01T09:00:00:000Z", "Europe/Berlin", "2026-12-01T09:00"),
    ("2026-12-01T09:00:00:000-0500", "Europe/Berlin", "2026-12-01T14:00"),
    ("Tue 12 01 09:00:00.-0500 2026", "Europe/Berlin", "2026-12-01T14:00"),
    ("2026-12-01 09:00:00", "Europe/Berlin", "2026-12-01T08:00"),
    ("12/01/2026", "Europe/Berlin", "2026-11-30T23:00"),
    ("2026-12-01", "America/New_York", "2026-12-01T05:00"),
]


@pytest.mark.parametrize(("text", "zone", "moment"), OFFSETS)
def test_a_time_with_an_offset_is_that_moment(text: str, zone: str, moment: str) -> None:
    """However an offset is written, the zone's clocks are not asked; without one, they are."""
    assert moments(compile_schedule(Schedule(at=text, time_zone=zone))) == [moment]
    rule = Schedule(rrule="FREQ=DAILY;COUNT=1", start=text, time_zone=zone)
    assert moments(compile_schedule(rule)) == [moment]


@pytest.mark.parametrize("text", ["2026-12-01 09:00:00+01", "2026-12-01T09:00-05", "2026-12-01T09:00:00:000Z"])
def test_an_offset_beside_each_users_own_clocks_is_refused(text: str) -> None:
    """A time on everyone's own clocks has none, however it is written."""
    with pytest.raises(BadDefinition, match="has an offset"):
        compile_schedule(Schedule(at=text, local_time=True))
