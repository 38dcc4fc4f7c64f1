"""What waits for a user's own time of a schedule: it ends with its schedule, and one person gets it once."""

from typing import Any

import msgspec
import pytest

from streams.codec import pack
from streams.definitions import read_definitions
from streams.mailbox import Chosen, FanStep, Forward
from streams.profiles.row import CampaignHistory, OccurrenceId, Waiting, decode_row, encode_row, new_user
from streams.times import HOUR_MS, format_time, parse_time
from tests.driver import Driver


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
