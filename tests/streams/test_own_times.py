"""What waits for a user's own time of a schedule: it ends with its schedule, and one person gets it once."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import pack
from streams.definitions import read_definitions
from streams.mailbox import Chosen, FanStep, Forward, Tick
from streams.profiles.row import CampaignHistory, OccurrenceId, Waiting, decode_row, encode_row, new_user
from streams.records import Output
from streams.times import DAY_MS, HOUR_MS, format_time, parse_time
from tests.driver import Driver
from tests.streams.mailboxes import START_MS
from tests.streams.test_merged_fanouts import DEVICES, KNOWN, OWNER, World


def files_of(**more: Any) -> dict[str, Any]:
    """The files of a workspace with one campaign to everyone."""
    return {"campaigns/c.yaml": {"name": "c", "channel": "log", "message": {"text": "hi"}, **more}}


def local(at: str, zone: str = "UTC") -> dict[str, Any]:
    """A schedule by each user's clocks."""
    return {"at": at, "local_time": True, "time_zone": zone}


def step(driver: Driver, to: str | None = None) -> None:
    """A step of each open fan-out, of everyone or up to a key."""
    for at, fold in enumerate(driver.folds):
        for fanout in list(fold.position.fanouts):
            driver.deliver(at, None, FanStep(fanout.number, fanout.cursor, to))


def until(driver: Driver, time: str) -> None:
    """Let time pass, with steps of every fan-out each quarter of an hour."""
    while driver.now_ms < parse_time(time):
        driver.advance(HOUR_MS // 4)
        step(driver)


def at_the_time(time: str, zones: dict[str, str]) -> Driver:
    """Users in zones, known since the day before a time, which has come."""
    driver = Driver({})
    driver.now_ms = parse_time("2026-11-29T12:00:00")
    for user, zone in zones.items():
        who = {"device_id": user.removeprefix("device:")} if user.startswith("device:") else {"external_id": user}
        driver.send({"type": "attributes", **who, **({"time_zone": zone} if zone else {"x": 1})})
    driver.now_ms = parse_time(time)
    return driver


def sent(driver: Driver) -> list[tuple[str, str]]:
    """Who got it when, in order."""
    return [(one.user, format_time(one.decided_ms)[:16]) for one in driver.sends]


def cancel(driver: Driver) -> list[str]:
    """Cancel the campaign, as the command does; returns the digests that are over."""
    plan = driver.workspaces[len(driver.definitions) - 1].campaigns["c"].plan
    assert plan is not None
    driver.switch(msgspec.structs.replace(driver.definitions[-1], cancelled={"c": [plan.digest]}))
    return [plan.digest]


@pytest.mark.parametrize(
    ("corrected", "moments"),
    [
        (local("2026-12-03T09:00:00"), [("ann", "2026-12-03T17:00")]),
        (local("2026-12-01T12:00:00"), [("ann", "2026-12-01T20:00")]),
        ({"at": "2026-12-01T10:00:00Z"}, [("ann", "2026-12-01T10:00")]),
    ],
)
def test_what_waits_of_a_cancelled_schedule_never_comes(
    corrected: dict[str, Any], moments: list[tuple[str, str]]
) -> None:
    """Cancelled and given another schedule, a user who waited gets only that one, also where it begins meanwhile."""
    driver = at_the_time("2026-12-01T08:00:00", {"ann": "America/Los_Angeles"})
    driver.switch(read_definitions(files_of(schedule=local("2026-12-01T09:00:00"))))
    until(driver, "2026-12-01T08:15:00")
    assert [each.due_ms for each in driver.user("ann").waiting] == [parse_time("2026-12-01T17:00:00")]
    over = cancel(driver)
    driver.advance(HOUR_MS // 2)
    driver.switch(msgspec.structs.replace(read_definitions(files_of(schedule=corrected)), cancelled={"c": over}))
    until(driver, "2026-12-05T00:00:00")

    assert sent(driver) == moments


def test_what_is_handed_on_of_a_cancelled_schedule_never_comes() -> None:
    """A letter that says whom it had chosen as an anonymous user may come when the campaign has another schedule."""
    driver = at_the_time("2026-12-01T08:00:00", {"ann": ""})
    driver.switch(read_definitions(files_of(schedule=local("2026-12-01T09:00:00"))))
    over = cancel(driver)
    corrected = read_definitions(files_of(schedule=local("2026-12-03T09:00:00")))
    driver.switch(msgspec.structs.replace(corrected, cancelled={"c": over}))
    at_ms, local_ms = parse_time("2026-11-30T19:00:00"), parse_time("2026-12-01T09:00:00")
    for number, plan in enumerate((over[0], "another")):
        driver.deliver(0, b"ann", Forward("device:d1", number, pack(Chosen("c", at_ms, local_ms, plan))))
        assert len(driver.user("ann").waiting) == number


def test_a_row_from_before_occurrences_were_noted_is_read_and_sent() -> None:
    """An entry that does not say of which schedule it is goes by the campaign's name, as it did."""
    row = new_user(0)
    row.waiting = [Waiting(5, "c", 0, {})]
    row.campaigns = {"c": CampaignHistory(1, 3, "a")}
    fields = msgspec.msgpack.decode(encode_row(row))
    names = row.__struct_fields__
    fields[names.index("waiting")] = [[5, "c", 0, {}]]
    fields[names.index("campaigns")] = {"c": [1, 3, "a"]}
    assert encode_row(decode_row(msgspec.msgpack.encode(fields))) == encode_row(row)

    driver = at_the_time("2026-12-01T08:00:00", {"ann": "America/Los_Angeles"})
    driver.switch(read_definitions(files_of(schedule=local("2026-12-01T09:00:00"))))
    until(driver, "2026-12-01T08:15:00")
    user = driver.user("ann")
    assert isinstance(user.waiting[0].occurrence, OccurrenceId)
    user.waiting[0] = msgspec.structs.replace(user.waiting[0], occurrence=None)
    driver.rows[0].stored["ann"] = encode_row(user)
    until(driver, "2026-12-02T00:00:00")

    assert sent(driver) == [("ann", "2026-12-01T17:00")]


# ---- one person, two times


def of_two(zones: dict[str, str]) -> Driver:
    """A daily campaign whose first time has begun, to a device's anonymous user and a known one who are one person."""
    driver = at_the_time("2026-12-01T00:00:00", zones)
    schedule = {"rrule": "FREQ=DAILY;COUNT=1", "start": "2026-12-01T09:00:00", "local_time": True}
    driver.switch(read_definitions(files_of(schedule=schedule, re_eligible_after="6h")))
    driver.advance(1_000)
    return driver


LOGIN = {"type": "identify", "device_id": "a1", "external_id": "zoe"}
TWO = {"device:a1": "", "zoe": "America/Los_Angeles"}


def test_the_known_users_own_time_wins_over_what_a_device_waits_for() -> None:
    """Merged while the device waits and before the known user's own step, the person gets it once, at the own time."""
    driver = of_two(TWO)
    step(driver, "device:a1")
    driver.send(LOGIN)
    assert (len(driver.user("zoe").waiting), driver.user("zoe").chosen) == (1, [1])
    until(driver, "2026-12-03T00:00:00")

    assert sent(driver) == [("zoe", "2026-12-01T17:00")]


def test_of_two_who_wait_the_known_users_time_is_the_one() -> None:
    """Merged when both wait for the same occurrence, the person gets it once; another one that waits moves along."""
    driver = of_two(TWO)
    step(driver)
    device, own = driver.user("device:a1"), driver.user("zoe")
    other = Waiting(device.waiting[0].due_ms, "c", 0, {}, OccurrenceId("another", 0))
    device.waiting.append(other)
    driver.rows[0].stored["device:a1"] = encode_row(device)
    driver.send(LOGIN)

    assert driver.user("zoe").waiting == [*own.waiting, other]


def test_what_a_device_waited_for_is_had_when_the_known_users_step_comes() -> None:
    """Where the device's time comes before the known user's own step, that was the one."""
    driver = of_two(TWO)
    step(driver, "device:a1")
    driver.send(LOGIN)
    driver.advance(10 * HOUR_MS)
    until(driver, "2026-12-03T00:00:00")

    assert sent(driver) == [("zoe", "2026-12-01T09:00")]


def test_who_had_it_as_an_anonymous_user_does_not_wait_on() -> None:
    """Whoever waits for the own time, and had it on a device that kept another, gets no second."""
    driver = of_two(TWO)
    until(driver, "2026-12-01T10:00:00")
    driver.send(LOGIN)
    assert driver.user("zoe").waiting == []
    until(driver, "2026-12-03T00:00:00")

    assert sent(driver) == [("device:a1", "2026-12-01T09:00")]


def test_another_occurrence_comes_to_whoever_has_had_one() -> None:
    """What is remembered of one day keeps nobody from the next."""
    driver = at_the_time("2026-11-30T00:00:00", TWO)
    schedule = {"rrule": "FREQ=DAILY;COUNT=3", "start": "2026-12-01T09:00:00", "local_time": True}
    driver.switch(read_definitions(files_of(schedule=schedule, re_eligible_after="6h")))
    until(driver, "2026-12-01T10:00:00")
    driver.send(LOGIN)
    until(driver, "2026-12-06T00:00:00")

    assert sent(driver) == [
        ("device:a1", "2026-12-01T09:00"),
        ("zoe", "2026-12-02T17:00"),
        ("zoe", "2026-12-03T17:00"),
    ]


ZONES = ["", "Pacific/Kiritimati", "Europe/Berlin", "America/Los_Angeles"]


def at_random(world: World, dice: random.Random, logins: list[str], *, apart: bool) -> list[tuple[str, int]]:
    """Hours, steps, slices and logins in any order, with partitions' clocks `apart` or not.

    Returns:
        Who had had it when merged, and how often as that user.
    """
    had: list[tuple[str, int]] = []
    for _ in range(dice.randint(0, 60)):
        kind, at = dice.choice(["tick", "ahead", "work", "crash", "step", "step", "identify"]), dice.randrange(3)
        hours_ms = dice.randint(0, 4) * HOUR_MS
        if kind == "tick":
            world.tick(world.now_ms + hours_ms)
        elif kind == "ahead" and apart:
            world.now_ms += hours_ms
            world.append(Output("mailbox", at, None, pack(Tick(world.now_ms))))
            world.now_ms -= hours_ms
        elif kind == "work":
            world.work(at, dice.randint(1, 4))
        elif kind == "crash":
            world.crash(at, dice.randint(1, 4))
        elif kind == "step":
            world.step(at, dice.choice([None, "b", "device:d2", "device:d3"]))
        elif kind == "identify" and logins:
            device = logins.pop(dice.randrange(len(logins)))
            world.settle()
            world.identify(device)
            world.settle()
            user = OWNER[device]
            if world.sent[user] or world.sent[f"device:{device}"]:
                had.append((user, world.sent[user]))
    return had


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**9),
    likers=st.sets(st.sampled_from((*KNOWN, *DEVICES)), min_size=1),
    after=st.sampled_from([None, "0s", "6h"]),
    apart=st.booleans(),
)
def test_each_person_gets_it_once_at_whatever_times(
    seed: int, likers: set[str], after: str | None, *, apart: bool
) -> None:
    """Devices and users in other zones, merged at any time: as a known user nobody gets it twice, or once it was had.

    Everyone gets it where the partitions' clocks are not hours apart: with those, nobody may be in it at the moment.
    """
    dice = random.Random(seed)
    at = format_time(START_MS // DAY_MS * DAY_MS + 2 * DAY_MS + 9 * HOUR_MS)[:19]
    again = {} if after is None else {"re_eligible_after": after}
    files = files_of(schedule=local(at), audience={"event": {"name": "like"}}, **again)
    world = World(files, 3)
    for user in (*KNOWN, *DEVICES):
        who = {"device_id": user} if user in DEVICES else {"external_id": user}
        world.send({"type": "attributes", **who, "time_zone": dice.choice(ZONES)})
        if user in likers:
            world.like(**who)
    world.settle()
    world.tick(parse_time(at) - 15 * HOUR_MS)
    logins = list(DEVICES)
    had = at_random(world, dice, logins, apart=apart)
    for device in logins:
        world.identify(device)
    world.finish()
    world.tick(parse_time(at) + 3 * DAY_MS)
    world.finish()

    people = {OWNER.get(user.removeprefix("device:"), user) for user in world.sent}
    reached = {OWNER.get(user, user) for user in likers}
    assert people <= reached if apart else people == reached
    assert max((world.sent[user] for user in KNOWN), default=0) <= 1
    assert [(user, world.sent[user]) for user, _ in had] == had
    assert not world.dead
