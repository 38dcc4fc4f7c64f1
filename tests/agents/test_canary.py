"""The canary is timed from event to message, and nothing but its own metrics knows that it was there."""

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Sample

from agents.canary import Canary
from agents.engine.engine import Engine
from agents.node import Node
from channels.canary import Canaries
from config import metrics
from config.clock import SystemClock
from config.settings import Settings
from streams import canary
from streams.intake import route
from streams.mailbox import Probe
from streams.records import Record
from tests.agents.nodes import NOW_MS, ask, event, process, records, running, until, write_workspace
from tests.agents.test_node import FILES

SEGMENTS = {
    "segments/fresh.yaml": {"name": "fresh", "filter": {"event": {"name": "like", "within": "1h"}}},
    "segments/all.yaml": {"name": "all", "filter": {"not": {"purchases": {"at_least": 1}}}},
}


def arrived() -> float:
    """How many canaries have been timed, in this process."""
    return next(each.value for each in samples_of(metrics.CANARY_SECONDS) if each.name.endswith("_count"))


def samples_of(metric: MetricWrapperBase) -> list[Sample]:
    """A metric as it stands."""
    return [sample for family in metric.collect() for sample in family.samples]


async def told(node: Node) -> dict[str, Any]:
    """All that a node tells of users, segments, sends and exports."""
    topics = ("segment-changes", "currents", "dead-letters")
    return {
        **{name: await ask(node, name) for name in ("totals", "segments", "sends", "dispatches")},
        **{topic: len(await records(node, topic)) for topic in topics},
        "rows": {partition: node.users.states[partition].position.totals for partition in node.engine.held},
    }


async def test_a_canary_is_timed_and_counted_nowhere_else(tmp_path: Path) -> None:
    """Canaries pass through every partition and are timed; users, segments, sends and exports stay as they were."""
    workspace = write_workspace(tmp_path / "workspace", FILES | SEGMENTS)
    async with running(tmp_path / "data", SystemClock(), workspace=workspace) as node:
        await process(node, event("ann"), event("bob"))
        before, count = await told(node), arrived()
        for _ in range(8):
            await node.canary.send()
            await node.quiesce()
        assert arrived() == count + 8
        letters = await records(node, "sends.log")
        passed = [partition for partition, record in letters if b'"~canary"' in record.value]
        assert sorted(passed) == [0] * 4 + [1] * 4
        assert await told(node) == before


async def test_one_canary_at_a_time_waits_in_a_partition_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the users agent hangs, one canary per partition is under way and seen to be; it arrives in the end."""
    release = asyncio.Event()
    async with running(tmp_path / "data", SystemClock(), canary_s=0.01) as node:
        commit: Any = node.users._commit

        async def hang(partition: int) -> None:
            await release.wait()
            await commit(partition)

        await until(lambda: arrived() > 0)
        monkeypatch.setattr(node.users, "_commit", hang)
        await until(lambda: len(node.canary._away) == 2)
        sent = metrics.CANARIES_SENT._value.get()
        await asyncio.sleep(0.2)
        assert metrics.CANARIES_SENT._value.get() == sent
        await node.gauges.sample()
        waiting = {each.labels["partition"]: each.value for each in samples_of(metrics.CANARY_WAITING_SECONDS)}
        assert set(waiting) == {"0", "1"}
        assert min(waiting.values()) > 0.15
        await node.board.look()
        components = {each["component"]: each["state"] for each in node.board.summary()["components"]}
        assert components["Canary"] == "OK"
        assert "Provider of canary" not in components
        count = arrived()
        release.set()
        await until(lambda: arrived() >= count + 2)


async def test_a_canary_that_comes_twice_is_one(tmp_path: Path) -> None:
    """A crash may append a probe twice; it is recorded as one dispatch."""
    async with running(tmp_path / "data", SystemClock()) as node:
        probe = canary.event(1, Probe("somebody", 7))
        await node.engine.transport.append([probe, probe])
        await node.quiesce()
        assert +Counter(node.delivery.dispatches[1].counts[canary.CAMPAIGN]) == {"sent": 1}


async def test_what_only_looks_like_a_canary_is_refused(tmp_path: Path) -> None:
    """A record of that type with anything else in it is a dead letter like any bad one."""
    async with running(tmp_path / "data", SystemClock()) as node:
        await process(node, b'{"type":"canary","external_id":"ann"}')
        [(_, letter)] = await records(node, "dead-letters")
        assert dict(letter.headers)["reason"] == b"bad_value"
        assert await records(node, "sends.log") == []


async def test_a_replay_times_no_canary() -> None:
    """Under the stream clock none is sent, and those of a recorded log are left out."""
    settings = Settings(clock="stream")
    async with asyncio.timeout(1):
        await Canary(cast("Engine", SimpleNamespace(settings=settings)), Canaries(), 0.01).run()
    record = Record(0, NOW_MS, None, canary.event(0, Probe("then", 1)).value)
    assert route(record, "topic", 0, 2, "stream") == []
    assert [output.topic for output in route(record, "topic", 0, 2, "wall")] == ["mailbox"]
