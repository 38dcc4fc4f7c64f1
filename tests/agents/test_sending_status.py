"""The state of a process tells of fan-outs under way: how far each is, and when it ends."""

from pathlib import Path
from typing import Any

import pytest

from agents.web import listing
from agents.web.campaigns import campaign_rows, under_way
from config.clock import ManualClock
from streams.definitions import read_definitions
from streams.mailbox import FanStep, Switch
from streams.times import format_time, parse_time
from streams.workspace import compile_workspace
from tests.agents.nodes import NOW_MS, ask, running, send, until, write_workspace
from tests.driver import Driver

USERS = 40


def row(**more: object) -> dict[str, Any]:
    """A campaign's row, as `campaigns` has it, a quarter of the way."""
    known = {"campaign": "news", "state": "sending", "decided": 10, "users": 40, "ends": "2026-12-01T09:00:04Z"}
    return {**known, "next": None, "began": None, "entered": 1, "sent": 1, **more}


@pytest.mark.parametrize(
    ("more", "shown"),
    [({}, 1), ({"state": "paused"}, 0), ({"decided": 40}, 0), ({"users": 0, "decided": 0}, 0), ({"ends": None}, 1)],
)
def test_only_what_has_users_to_decide_is_under_way(more: dict[str, object], shown: int) -> None:
    """One that is paused, done, or only waits for users' own times, is not."""
    assert len(under_way([row(**more)])) == shown


def test_a_fan_out_is_one_line() -> None:
    """Behind the headline stand its users, their share, and the end where one can be told."""
    answer = {"headline": "Healthy", "at_ms": 0, "components": [], "sending": under_way([row(), row(ends=None)])}
    lines = listing.status(answer).split("\n")

    assert lines[1:3] == [
        "news: 10 of 40 users decided (25 %), ends about 2026-12-01T09:00:04Z",
        "news: 10 of 40 users decided (25 %)",
    ]


def test_an_occurrence_that_begins_a_little_apart_in_each_partition_is_one() -> None:
    """Local times that are defined late begin when each partition hears of them; users of all of them are counted."""
    driver = Driver({}, partitions=4)
    driver.now_ms = parse_time("2026-12-01T08:30:00")
    for at in range(USERS):
        driver.send({"type": "attributes", "external_id": f"u{at}", "x": 1})
    schedule = {"at": "2026-12-01T18:00:00", "local_time": True}
    news = {"name": "news", "schedule": schedule, "channel": "log", "message": {"text": "hi"}}
    workspace = driver.workspaces[1] = compile_workspace(read_definitions({"campaigns/news.yaml": news}), 1)
    for partition in range(4):
        driver.deliver(partition, None, Switch(1))
        driver.now_ms += 1
    driver.advance(100)
    for partition, fold in enumerate(driver.folds[:3]):
        driver.deliver(partition, None, FanStep(fold.position.fanouts[0].number, "", None))
    positions = [fold.position for fold in driver.folds]
    (told,) = campaign_rows(workspace, positions, {}, driver.now_ms)
    left = positions[3].totals.users

    assert len({at_ms for each in positions if (at_ms := each.plans["news"].since_ms)}) == 4
    assert 0 < left < USERS
    assert (told["state"], told["users"], told["decided"]) == ("sending", USERS, USERS - left)
    assert told["began"] == "2026-12-01T08:30:00.001Z"


async def test_a_running_fan_out_is_in_the_status(tmp_path: Path) -> None:
    """While a rate holds it back it is told of, and once everyone is decided it is not."""
    schedule = {"at": format_time(NOW_MS + 1_000), "rate": {"per_second": 10}}
    news = {"name": "news", "schedule": schedule, "channel": "log", "message": {"text": "hi"}}
    workspace = write_workspace(tmp_path / "workspace", {"campaigns/news.yaml": news})
    clock = ManualClock(NOW_MS)
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await send(node, *({"type": "attributes", "external_id": f"u{at}", "a": 1} for at in range(USERS)))
        await node.quiesce()
        assert node.queries.campaigns()[0]["state"] == "scheduled"
        clock.advance(1_500)
        await until(lambda: node.queries.campaigns()[0]["state"] == "sending")
        (told,) = (await ask(node, "status"))["sending"]
        assert (told["campaign"], told["users"]) == ("news", USERS)
        assert told["decided"] < USERS

        def is_over() -> bool:
            clock.advance(50)
            return not under_way(node.queries.campaigns())

        await until(is_over, 30.0)
        assert (await ask(node, "status"))["sending"] == []
