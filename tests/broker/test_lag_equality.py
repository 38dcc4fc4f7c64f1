"""Our lag is Kafka's: at rest the very same number, under load no further off than what came meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agents.engine.kafka import membership
from agents.node import Node
from tests.broker.kafka import Broker, BrokerUnavailableError
from tests.broker.lag_tool import LagTool, Row, lag_tool
from tests.broker.workers import WAIT_S_MAX, Site, arrivals, node_on, produce, producer_of, purchases, quiet

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

POINTS = 20
LOOKS = 8
PUBLISH_S = 0.1
USERS = 40
Lags = dict[tuple[str, int], Row]


async def ours(node: Node) -> Lags:
    """What `lag` says, by topic and partition."""
    rows = await node.queries.lag()
    return {(row["topic"], row["partition"]): Row(row["position"], row["end"], row["lag"]) for row in rows}


async def published(node: Node, tool: LagTool) -> Lags:
    """What the tool says once the group knows every position; a partition nobody wrote to has none to know."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            found = await tool.ask()
            positions = {place: row.position for place, row in found.items()}
            if all(positions.get(place) == position for place, position in node.engine.slices.watermarks.items()):
                return found
            await asyncio.sleep(PUBLISH_S)


@asynccontextmanager
async def worker(
    broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Site, Node, LagTool]]:
    """A worker that publishes often, and the tool beside it."""
    monkeypatch.setattr(membership, "PUBLISH_S", PUBLISH_S)
    site = Site(broker, folder)
    try:
        async with node_on(site) as node, lag_tool(site) as tool:
            produce(site, arrivals(USERS))
            await quiet(node)
            yield site, node, tool
    except BrokerUnavailableError as missing:
        pytest.skip(f"no kafka-consumer-groups here: {missing}")


async def test_lag_equals_kafkas_tool_at_rest(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At twenty points at which nothing moves, half of them with a backlog, every position, end and lag is the same."""
    dice, behind = random.Random(4), 0
    async with worker(broker, tmp_path, monkeypatch) as (site, node, tool):
        for point in range(POINTS):
            produce(site, purchases(dice.randrange(1, 60), USERS, seed=point))
            await quiet(node)
            await published(node, tool)
            if point % 2:
                node.engine.slices.paused = True
                produce(site, purchases(dice.randrange(1, 60), USERS, seed=100 + point))
            theirs, mine = await tool.ask(), await ours(node)
            assert mine == theirs
            behind += sum(row.lag or 0 for row in mine.values())
            node.engine.slices.paused = False
            node.engine.transport.wake()
    assert behind > POINTS


async def test_lag_is_kafkas_under_load(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While events pour in, the tool's lag lies within ours and what was produced between two looks of ours."""
    async with worker(broker, tmp_path, monkeypatch) as (site, node, tool):

        async def pour() -> None:
            sender, seed = producer_of(site), 0
            while True:
                seed += 1
                await asyncio.to_thread(produce, site, purchases(40, USERS, seed), sender)
                await asyncio.sleep(0.05)

        pouring = asyncio.create_task(pour())
        try:
            moved = 0
            for _ in range(LOOKS):
                before = await ours(node)
                await asyncio.sleep(5 * PUBLISH_S)  # the group hears of what we knew by then
                theirs = await tool.ask()
                after = await ours(node)
                for place, (_, end, lag) in theirs.items():
                    produced = (after[place].end or 0) - (before[place].end or 0)
                    moved += produced
                    if lag is not None and end is not None:
                        assert (before[place].end or 0) <= end <= (after[place].end or 0)
                        assert (after[place].lag or 0) - produced <= lag <= (before[place].lag or 0) + produced
            assert moved > LOOKS
        finally:
            pouring.cancel()
            await asyncio.gather(pouring, return_exceptions=True)
        await quiet(node)
