"""When a schedule comes round: rules against dateutil's own, local clocks over summer time, each user's own hour."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.campaigns.schedule import Plan, compile_schedule
from streams.definitions import BestTime, Rate, Schedule, read_definitions
from streams.errors import BadDefinition
from streams.fanouts import FIRST_LOCAL_MS
from streams.mailbox import FanStep
from streams.profiles.hours import note_activity, peak_of
from streams.profiles.row import User, new_user
from streams.times import DAY_MS, HOUR_MS, format_time, milliseconds, parse_time
from streams.workspace import compile_workspace
from streams.zones import moment_of, zone_names, zone_of
from tests.driver import Driver

START = datetime(2026, 1, 5, 9, 30)  # noqa: DTZ001 (as local clocks show it)
LOG: dict[str, Any] = {"channel": "log", "message": {"text": "hi"}}


def occurrences(plan: Plan, count: int, since_ms: int = 0) -> list[int]:
    """When the plan comes round, so many times."""
    found: list[int] = []
    local_ms = FIRST_LOCAL_MS
    while len(found) < count and (coming := plan.next_after(since_ms, local_ms)) is not None:
        found.append(coming.at_ms)
        local_ms = coming.local_ms
    return found


rules = st.builds(
    lambda freq, interval, days, hours, count: ";".join(
        part for part in (f"FREQ={freq};INTERVAL={interval}", days, hours, count) if part
    ),
    st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]),
    st.integers(1, 4),
    st.sampled_from(["", "BYDAY=MO,WE", "BYMONTHDAY=31", "BYMONTHDAY=-1", "BYMONTH=3,10", "BYMONTH=2;BYMONTHDAY=29"]),
    st.sampled_from(["", "BYHOUR=2,3;BYMINUTE=30", "BYHOUR=0,12"]),
    st.sampled_from(["", "COUNT=3", "COUNT=40", "UNTIL=20270615", "UNTIL=20260401T093000"]),
)


@settings(max_examples=150, deadline=None)
@given(rules, st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
def test_a_rule_fires_when_dateutil_says(rule: str, zone: str) -> None:
    """The first forty times are those of dateutil on local clocks, each at its moment in the zone."""
    text = rule.replace("UNTIL=20270615", "UNTIL=20270615T235959")
    local: list[datetime] = []
    for moment in rrulestr(text, dtstart=START):
        if len(local) == 40 or moment > START + timedelta(days=3_600):
            break
        local.append(moment)
    schedule = Schedule(rrule=rule, start=START.isoformat(), time_zone=zone)
    if not local:
        with pytest.raises(BadDefinition, match="does not fire"):
            compile_schedule(schedule)
        return
    times = sorted({moment_of(milliseconds(moment), zone) for moment in local})

    assert occurrences(compile_schedule(schedule), len(times)) == times


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(zone_names() - {"build/etc/localtime"})),
    st.integers(parse_time("2000-01-01"), parse_time("2037-01-01")),
)
def test_a_local_time_is_found_at_the_first_moment_that_shows_it(zone: str, local_ms: int) -> None:
    """No moment before shows it or a later time; the moment itself shows it, or the first time behind a gap."""
    minute = 60_000
    local_ms -= local_ms % minute
    found = moment_of(local_ms, zone)

    def shown(moment_ms: int) -> int:
        moment = datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(zone_of(zone))
        return milliseconds(moment.replace(tzinfo=None))

    assert shown(found) >= local_ms
    assert all(shown(found - back * minute) < local_ms for back in (1, 2, 15, 30, 59, 60, 61, 119, 180))


@pytest.mark.parametrize(
    ("zone", "local", "moment"),
    [
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:00:00.000Z"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00.000Z"),
        ("America/New_York", "2026-03-08T02:00:00", "2026-03-08T07:00:00.000Z"),
        ("America/New_York", "2026-11-01T01:30:00", "2026-11-01T05:30:00.000Z"),
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T15:30:00.000Z"),
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T10:00:00.000Z"),
    ],
)
def test_clocks_put_forward_and_back(zone: str, local: str, moment: str) -> None:
    """A time that is skipped is the first moment after the gap, one that is shown twice the first of the two."""
    assert format_time(moment_of(parse_time(local), zone)) == moment


REFUSED = {
    "nothing": (Schedule(), "exactly one of at, rrule"),
    "both": (Schedule(at="2026-12-01", rrule="FREQ=DAILY", start="2026-12-01"), "exactly one of at, rrule"),
    "no start": (Schedule(rrule="FREQ=DAILY"), "start"),
    "zone": (Schedule(at="2026-12-01T09:00:00", time_zone="Europe/Atlantis"), "no zone 'Europe/Atlantis'"),
    "path": (Schedule(at="2026-12-01T09:00:00", time_zone="../zones"), "no zone"),
    "time": (Schedule(at="tomorrow"), "'tomorrow' is not a time"),
    "offset": (Schedule(at="2026-12-01T09:00:00Z", local_time=True), "has an offset"),
    "often": (Schedule(rrule="FREQ=HOURLY;BYMINUTE=0,10", start="2026-12-01T09:00:00"), "more often than every 15m"),
    "minutes": (Schedule(rrule="FREQ=MINUTELY", start="2026-12-01T09:00:00"), "FREQ is one of"),
    "never": (Schedule(rrule="FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", start="2026-12-01T09:00:00"), "does not fire"),
    "no rule": (Schedule(rrule="FREQ=DAILY;BYDAY=XX", start="2026-12-01T09:00:00"), "is no rule"),
    "twice": (Schedule(rrule="FREQ=DAILY;FREQ=DAILY", start="2026-12-01T09:00:00"), "stands there twice"),
    "count": (Schedule(rrule="FREQ=DAILY;COUNT=0", start="2026-12-01T09:00:00"), "COUNT=0"),
    "until": (Schedule(rrule="FREQ=DAILY;UNTIL=soon", start="2026-12-01T09:00:00"), "UNTIL=SOON"),
    "both kinds": (Schedule(at="2026-12-01", local_time=True, best_time=BestTime("10:00")), "exclude each other"),
    "a day": (Schedule(at="2026-12-01T09:00:00", best_time=BestTime("10:00")), "is no day"),
    "clock": (Schedule(at="2026-12-01", best_time=BestTime("25:00")), "fallback: '25:00' is no time of day"),
    "window": (Schedule(at="2026-12-01", best_time=BestTime("10:00", "08:00", "08:00")), "the same"),
    "no rate": (Schedule(at="2026-12-01T09:00:00Z", rate=Rate()), "per_second, per_minute or both"),
    "rate": (Schedule(at="2026-12-01T09:00:00", local_time=True, rate=Rate(per_second=5)), "rate: goes with"),
    "rate of hours": (
        Schedule(at="2026-12-01", best_time=BestTime("10:00"), rate=Rate(per_minute=5)),
        "not with local_time or best_time",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_schedule_is_refused_in_words(case: str) -> None:
    """Each fault names its key, its value and the fix."""
    schedule, words = REFUSED[case]

    with pytest.raises(BadDefinition, match=words):
        compile_schedule(schedule)


def campaign(**more: Any) -> dict[str, Any]:  # JSON
    """The files of a workspace with one campaign."""
    return {"campaigns/c.yaml": {"name": "c", **LOG, **more}}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "exactly one of trigger, schedule"),
        ({"trigger": {"purchase": {}}, "schedule": {"at": "2026-12-01T09:00:00Z"}}, "exactly one of trigger, schedule"),
        ({"schedule": {"at": "2026-12-01T09:00:00Z"}, "delay": "5s"}, "delay: goes with a trigger"),
    ],
)
def test_a_campaign_has_a_trigger_or_a_schedule(more: dict[str, Any], words: str) -> None:
    """Neither, both, and a delay beside a schedule are refused."""
    with pytest.raises(BadDefinition, match=words):
        compile_workspace(read_definitions(campaign(**more)), 0)


# ---- each user's own time


def moments(driver: Driver) -> dict[str, str]:
    """When what was sent was decided, by user."""
    return {one.user: format_time(one.decided_ms) for one in driver.sends}


def at_local_time(local: str, zones: dict[str, str], since: str, **more: Any) -> Driver:  # any key of a campaign
    """Users in zones, and time from the fan-out to the end of the last of them."""
    driver = Driver({})
    driver.now_ms = parse_time(since)
    schedule = {"at": local, "local_time": True, "time_zone": "Europe/Berlin"}
    driver.switch(read_definitions(campaign(schedule=schedule, **more)))
    for user, zone in zones.items():
        driver.send({"type": "attributes", "external_id": user, **({"time_zone": zone} if zone else {"x": 1})})
    pass_time(driver, 60)
    return driver


def pass_time(driver: Driver, hours: int) -> None:
    """So many hours, with a step of every fan-out that opens."""
    for _ in range(hours * 4):
        driver.advance(HOUR_MS // 4)
        for fanout in list(driver.folds[0].position.fanouts):
            driver.deliver(0, None, FanStep(fanout.number, "", None))


ZONES = {
    "kir": "Pacific/Kiritimati",
    "ber": "Europe/Berlin",
    "none": "",
    "odd": "Mars/Olympus",
    "hon": "Pacific/Honolulu",
}


def test_everyone_gets_it_at_the_same_time_of_their_own_clocks() -> None:
    """From the first zone on earth to one of the last; without a zone, by the definition's."""
    driver = at_local_time("2026-12-01T09:00:00", ZONES, "2026-11-30T00:00:00")

    assert moments(driver) == {
        "kir": "2026-11-30T19:00:00.000Z",
        "ber": "2026-12-01T08:00:00.000Z",
        "none": "2026-12-01T08:00:00.000Z",
        "odd": "2026-12-01T08:00:00.000Z",
        "hon": "2026-12-01T19:00:00.000Z",
    }


@pytest.mark.parametrize(
    ("local", "moment"),
    [("2026-03-29T02:30:00", "2026-03-29T01:00:00.000Z"), ("2026-10-25T02:30:00", "2026-10-25T00:30:00.000Z")],
)
def test_local_time_over_both_changes_of_the_clocks(local: str, moment: str) -> None:
    """It comes once, at the first moment after a gap, and at the first of two."""
    driver = at_local_time(local, {"ber": "Europe/Berlin"}, format_time(parse_time(local) - 2 * DAY_MS))

    assert moments(driver) == {"ber": moment}
    assert len(driver.sends) == 1


def test_who_has_left_the_audience_by_their_own_time_gets_nothing() -> None:
    """Membership counts when the fan-out begins and again at the user's own time."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-11-30T00:00:00")
    audience = {"attribute": {"path": "plan", "is": "gold"}}
    schedule = {"at": "2026-12-01T09:00:00", "local_time": True}
    driver.switch(read_definitions(campaign(schedule=schedule, audience=audience)))
    for user in ("stays", "leaves", "comes"):
        plan = "free" if user == "comes" else "gold"
        driver.send({"type": "attributes", "external_id": user, "plan": plan})
    pass_time(driver, 20)
    driver.send({"type": "attributes", "external_id": "leaves", "plan": "free"})
    driver.send({"type": "attributes", "external_id": "comes", "plan": "gold"})
    pass_time(driver, 40)

    assert [one.user for one in driver.sends] == ["stays"]


def test_a_schedule_that_comes_late_passes_over_whose_time_is_more_than_an_hour_past() -> None:
    """Below an hour it is sent at once, above it not at all, and the zones to come get it in time."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-12-01T08:30:00")
    zones = {"ber": "Europe/Berlin", "fin": "Europe/Helsinki", "lon": "Europe/London"}
    for user, zone in zones.items():
        driver.send({"type": "attributes", "external_id": user, "time_zone": zone})
    driver.switch(read_definitions(campaign(schedule={"at": "2026-12-01T09:00:00", "local_time": True})))
    pass_time(driver, 30)

    assert moments(driver) == {"ber": "2026-12-01T08:45:00.000Z", "lon": "2026-12-01T09:00:00.000Z"}


def test_a_cancel_reaches_those_who_wait_for_their_own_time() -> None:
    """What waits in a row is not sent either."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-11-30T00:00:00")
    definitions = read_definitions(campaign(schedule={"at": "2026-12-01T09:00:00", "local_time": True}))
    driver.switch(definitions)
    driver.send({"type": "attributes", "external_id": "ann", "x": 1})
    pass_time(driver, 20)
    assert driver.user("ann").waiting
    driver.switch(read_definitions({}))
    driver.switch(definitions)
    driver.pause("c")
    pass_time(driver, 40)

    assert driver.sends == []
    assert driver.user("ann").waiting == []


def test_a_weekly_campaign_reaches_a_user_again() -> None:
    """With re_eligible_after of a week every occurrence is sent; without, only the first."""
    for after, count in (("7d", 4), (None, 1)):
        driver = Driver({})
        driver.now_ms = parse_time("2026-11-30T00:00:00")
        schedule = {"rrule": "FREQ=WEEKLY;COUNT=4", "start": "2026-12-01T09:00:00"}
        driver.switch(read_definitions(campaign(schedule=schedule, re_eligible_after=after)))
        driver.send({"type": "attributes", "external_id": "ann", "x": 1})
        for _ in range(40):
            pass_time(driver, 24)

        assert len(driver.sends) == count
        assert driver.folds[0].position.plans["c"].opened == 4


def test_occurrences_that_nobody_was_there_for_are_missed_but_for_the_last() -> None:
    """A partition that stood still for three days sends the newest of three daily occurrences, late."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-11-30T00:00:00")
    schedule = {"rrule": "FREQ=DAILY", "start": "2026-12-01T09:00:00"}
    driver.switch(read_definitions(campaign(schedule=schedule, re_eligible_after="0s")))
    driver.send({"type": "attributes", "external_id": "ann", "x": 1})
    driver.advance(4 * DAY_MS)
    planned = driver.folds[0].position.plans["c"]

    assert (planned.opened, planned.missed) == (1, 2)
    assert format_time(driver.folds[0].position.fanouts[0].occurrence.at_ms) == "2026-12-03T09:00:00.000Z"


# ---- best time


def person(dice: random.Random, peak_ms: int, zone: str, now_ms: int) -> User:
    """A user with some weeks of sessions, most of them within twenty minutes of one time of their day."""
    user = new_user(now_ms)
    user.attributes["time_zone"] = zone
    for day in range(60, 0, -1):
        if dice.random() < 0.5:
            near = int(dice.gauss(0, 10 * 60_000))
            local_ms = (now_ms // DAY_MS - day) * DAY_MS + peak_ms + max(-20 * 60_000, min(20 * 60_000, near))
            note_activity(user, moment_of(local_ms, zone))
        if dice.random() < 0.15:
            note_activity(user, (now_ms // DAY_MS - day) * DAY_MS + dice.randrange(DAY_MS))
    return user


def test_best_times_lie_within_half_an_hour_of_the_known_peak() -> None:
    """Of a thousand users with a peak at any minute of their day, at least ninety in a hundred are met."""
    dice = random.Random(7)
    now_ms = parse_time("2026-12-01")
    hits = 0
    for _ in range(1_000):
        peak_ms = dice.randrange(DAY_MS // 60_000) * 60_000
        zone = dice.choice(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"])
        found = peak_of(person(dice, peak_ms, zone, now_ms), now_ms)
        assert found is not None
        apart = abs(found - peak_ms)
        hits += min(apart, DAY_MS - apart) <= 30 * 60_000

    assert hits >= 900


def test_the_past_fades() -> None:
    """A user whose habit has changed three months ago is met at the new hour; bins never overflow."""
    user = new_user(0)
    now_ms = parse_time("2026-12-01")
    for day in range(400, 0, -1):
        hour = 20 if day > 60 else 8
        for _ in range(3):
            note_activity(user, now_ms - day * DAY_MS + hour * HOUR_MS + 15 * 60_000)

    assert peak_of(user, now_ms) == 8 * HOUR_MS + 15 * 60_000
    assert peak_of(user, now_ms + 4 * 365 * DAY_MS) is None


def test_each_user_is_met_at_their_hour_or_at_the_fallback() -> None:
    """Through sessions, rows, fan-out and timers: a known hours, a thin history, and one outside the window."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-11-01T00:00:00")
    best = {"fallback": "10:00", "from": "08:00", "to": "22:00"}
    driver.switch(read_definitions(campaign(schedule={"at": "2026-11-20", "best_time": best})))
    hours = {"early": 7, "late": 19, "night": 2}
    for user in (*hours, "thin"):
        driver.send({"type": "attributes", "external_id": user, "time_zone": "America/New_York"})
    for day in range(1, 12):
        for user, hour in sorted(hours.items(), key=lambda each: each[1]):
            local_ms = parse_time(f"2026-11-{day:02}") + hour * HOUR_MS + 15 * 60_000
            driver.now_ms = moment_of(local_ms, "America/New_York")
            driver.send({"type": "session_start", "external_id": user, "session_id": f"{user}{day}"})
    driver.now_ms = parse_time("2026-11-18T00:00:00")
    pass_time(driver, 24 * 5)

    assert moments(driver) == {
        "early": "2026-11-20T15:00:00.000Z",
        "late": "2026-11-21T00:15:00.000Z",
        "night": "2026-11-20T15:00:00.000Z",
        "thin": "2026-11-20T15:00:00.000Z",
    }
