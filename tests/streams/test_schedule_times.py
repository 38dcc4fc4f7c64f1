"""At which moment a schedule's texts are: their offsets, windows of the day, and rules that have no end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.campaigns.schedule import Plan, compile_schedule
from streams.definitions import BestTime, Schedule
from streams.errors import BadDefinition
from streams.fanouts import FIRST_LOCAL_MS
from streams.profiles.hours import note_activity
from streams.profiles.row import User, new_user
from streams.times import format_time, parse_time
from streams.zones import local_of, moment_of


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


# ---- windows of best times


def there_at(*times: str, zone: str = "") -> User:
    """A user who came at these times of the day, by UTC or by the own clocks, on each of some days."""
    user = new_user(0)
    if zone:
        user.attributes["time_zone"] = zone
    for day in range(15, 25):
        for time in times:
            note_activity(user, moment_of(parse_time(f"2026-11-{day}T{time}"), zone or "UTC"))
    return user


def met_at(user: User, day: str, zone: str, from_: str, to: str) -> str:
    """When a schedule of best times in a window meets the user on a day."""
    best = BestTime("10:00", from_, to)
    plan = compile_schedule(Schedule(at=day, best_time=best, time_zone=zone))
    occurrence = plan.next_after(parse_time("2020-01-01"), FIRST_LOCAL_MS)
    assert occurrence is not None
    due_ms = plan.due_of(user, occurrence)
    assert due_ms is not None
    return format_time(local_of(due_ms, zone))[:16]


def test_a_window_is_of_the_zones_clocks_for_a_user_without_one() -> None:
    """Whose hours are known by UTC alone is met within the window as the schedule's zone shows it, or at fallback."""
    night, morning = there_at("18:20:00"), there_at("01:20:00")  # 03:20 and 10:20 in Tokyo

    assert met_at(night, "2026-12-01", "Asia/Tokyo", "08:00", "20:00") == "2026-12-01T10:00"
    assert met_at(morning, "2026-12-01", "Asia/Tokyo", "08:00", "20:00") == "2026-12-01T10:15"
    assert met_at(night, "2026-12-01", "Asia/Tokyo", "22:00", "06:00") == "2026-12-01T03:15"
    assert met_at(night, "2026-12-01", "Asia/Tokyo", "00:00", "24:00") == "2026-12-01T03:15"


WINDOWS_ZONES = ["UTC", "Asia/Tokyo", "Asia/Kathmandu", "America/Los_Angeles", "Europe/Berlin", "Pacific/Kiritimati"]
DAYS = ["2026-12-01", "2026-03-29", "2026-10-25"]
clocks = st.integers(0, 95).map(lambda quarter: f"{quarter // 4:02}:{quarter % 4 * 15:02}")


@settings(max_examples=300, deadline=None)
@given(
    times=st.lists(clocks, min_size=1, max_size=3),
    window=st.tuples(clocks, clocks).filter(lambda both: both[0] != both[1]),
    zone=st.sampled_from(WINDOWS_ZONES),
    own=st.booleans(),
    day=st.sampled_from(DAYS),
)
def test_nobody_is_met_outside_of_the_window(
    times: list[str], window: tuple[str, str], zone: str, day: str, *, own: bool
) -> None:
    """With a zone or without, over changes of the clocks, a best time that is no fallback is within from and to.

    But for what clocks skip, which is at the first moment after.
    """
    user = there_at(*(f"{time}:00" for time in times), zone=zone if own else "")
    from_, to = window
    found = met_at(user, day, zone, from_, to)[11:]

    inside = from_ <= found < to if from_ < to else found >= from_ or found < to
    is_skipped = (day, zone, found) == ("2026-03-29", "Europe/Berlin", "03:00")
    assert inside or found == "10:00" or is_skipped


@pytest.mark.parametrize(
    ("times", "window", "met"),
    [
        (("07:40:00", "08:05:00"), ("08:15", "20:00"), "08:15"),
        (("07:40:00", "08:05:00"), ("08:00", "20:00"), "08:00"),
        (("19:35:00", "20:05:00", "20:10:00"), ("08:00", "20:00"), "19:30"),
        (("19:35:00", "20:05:00", "20:10:00"), ("19:40", "20:00"), "19:40"),
    ],
)
def test_a_best_time_is_not_before_the_window_in_its_half_hour(
    times: tuple[str, ...], window: tuple[str, str], met: str
) -> None:
    """Where a window begins within a half hour, so does what is found there."""
    user = there_at(*times, zone="Europe/Berlin")

    assert met_at(user, "2026-12-01", "Europe/Berlin", *window) == f"2026-12-01T{met}"


# ---- rules


@pytest.mark.parametrize("freq", ["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY"])
@pytest.mark.parametrize("interval", ["0", "-1", "1.5"])
@pytest.mark.parametrize("more", ["", ";BYMONTH=3", ";COUNT=1"])
def test_an_interval_below_one_is_refused_at_once(freq: str, interval: str, more: str) -> None:
    """A rule that goes nowhere, or back in time, is neither searched for ever nor let in."""
    rule = f"FREQ={freq};INTERVAL={interval}{more}"
    with pytest.raises(BadDefinition, match=f"INTERVAL={interval} is no number"):
        compile_schedule(Schedule(rrule=rule, start="2026-12-01T09:00:00"))


LIMITS = [
    ("20261203T000000Z", "America/Los_Angeles", ["2026-12-02T01:00"]),
    ("20261203T010000Z", "America/Los_Angeles", ["2026-12-02T01:00", "2026-12-03T01:00"]),
    ("20261203T000000", "America/Los_Angeles", ["2026-12-02T01:00", "2026-12-03T01:00"]),
    ("20261202T080000Z", "Asia/Tokyo", ["2026-12-01T08:00", "2026-12-02T08:00"]),
    ("20261202T075959Z", "Asia/Tokyo", ["2026-12-01T08:00"]),
    ("20261202T165959Z", "UTC", ["2026-12-01T17:00"]),
    ("20261202", "America/Los_Angeles", ["2026-12-02T01:00", "2026-12-03T01:00"]),
    ("99991231T235959Z", "Asia/Tokyo", ["2026-12-01T08:00", "2026-12-02T08:00", "2026-12-03T08:00"]),
]


@pytest.mark.parametrize(("until", "zone", "expected"), LIMITS)
def test_until_with_a_z_is_a_moment(until: str, zone: str, expected: list[str]) -> None:
    """As RFC 5545 has it, an UNTIL with Z is UTC, and one without is what the zone's clocks show."""
    schedule = Schedule(rrule=f"FREQ=DAILY;UNTIL={until}", start="2026-12-01T17:00:00", time_zone=zone)

    assert moments(compile_schedule(schedule), 3) == expected
