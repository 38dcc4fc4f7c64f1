"""Definitions over existing users on two workers: each builds its own partitions, and a kill loses nothing."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.engine.kafka.topics import ensure_topics
from streams.definitions import read_definitions
from tests.broker.kafka import Broker
from tests.broker.workers import (
    LOOK_S,
    PARTITIONS,
    WAIT_S_MAX,
    Site,
    Worker,
    arrivals,
    crew,
    opened,
    produce,
    purchases,
    remembered,
    settled,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

USERS = 400
NEW: dict[str, Any] = {
    "segments/twice.yaml": {"name": "twice", "filter": {"purchases": {"at_least": 2}}},
    "segments/far.yaml": {"name": "far", "filter": {"purchases": {"at_least": 1, "within": "700d"}}},
    "campaigns/hello.yaml": {
        "name": "hello",
        "trigger": {"segment_entered": "twice"},
        "channel": "log",
        "message": {"text": "hi"},
    },
}


async def decided(*workers: Worker) -> list[dict[str, Any]]:
    """What the workers that answer say of their partitions."""
    found: list[dict[str, Any]] = []
    for worker in workers:
        try:
            found += await worker.ask("scans")
        except OSError:
            continue
    return found


async def test_two_workers_build_their_own_partitions_and_one_is_killed(broker: Broker, tmp_path: Path) -> None:
    """Killed amid the scan and started again, a worker goes on: every user is in the new segments as counted."""
    site = Site(broker, tmp_path, more=(("SCAN_USERS_PER_S", "60"),))
    await ensure_topics(site.settings("one"))
    bought = purchases(700, USERS, seed=11)
    async with crew() as workers:
        workers += [Worker(site, "one", MEMBER="one"), Worker(site, "two", MEMBER="two")]
        await opened(workers)
        produce(site, [*arrivals(USERS), *bought])
        await settled(*workers)
        await workers[0].ask("apply", definitions=msgspec.to_builtins(read_definitions(NEW)))
        async with asyncio.timeout(WAIT_S_MAX):
            while sum(row["state"] == "building" for row in await decided(workers[1])) < 1:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
        workers[1].signal(signal.SIGKILL)
        await workers[1].ended()
        workers.append(Worker(site, "two", MEMBER="two"))
        await opened([workers[0], workers[2]])
        await settled(workers[0], workers[2])
        status = await decided(workers[0], workers[2])
        sends = [await worker.ask("sends") for worker in (workers[0], workers[2])]
        for worker in (workers[0], workers[2]):
            await worker.stop()

    counts = {f"user-{at}": 0 for at in range(USERS)}
    for user, _ in bought:
        counts[user] += 1
    found = {user: set(row[3]) for user, row in (await remembered(site)).items()}
    wanted = {user: {name for name, least in (("far", 1), ("twice", 2)) if n >= least} for user, n in counts.items()}
    assert found == wanted
    assert sorted(row["partition"] for row in status) == list(range(PARTITIONS))
    assert {(row["state"], row["ended"] is not None) for row in status} == {("current", True)}
    assert len({row["built_version"] for row in status}) == 1
    assert all(row["switch_offset"] > 0 for row in status)
    assert [found.get("hello") for found in sends] == [{}, {}]
