"""A cluster that forgets all that was read, as after a week of silence: nobody misses it, unless it was not read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from agents.engine import keeping
from agents.engine.engine import Engine
from agents.node import Node
from streams import topics
from streams.errors import BadState
from tests.broker.kafka import Broker
from tests.broker.workers import (
    PARTITIONS,
    WAIT_S_MAX,
    Site,
    arrivals,
    exactly_once,
    model_of,
    node_on,
    produce,
    purchases,
    quiet,
)

pytestmark = pytest.mark.broker
USERS = 12
READ = ("events", "mailbox", "currents", *(topic.name for topic in topics.SENDS.values()))


async def forget(site: Site) -> None:
    """Have the brokers delete every record of what agents read, markers of transactions included."""
    admin = AdminClient({"bootstrap.servers": site.broker.address})
    everything = [TopicPartition(site.topic(name), at, -1) for name in READ for at in range(PARTITIONS)]
    for deleted in admin.delete_records(everything).values():
        await asyncio.to_thread(deleted.result, 30)


async def lost(node: Node) -> list[str]:
    """Stored positions below the starts of their logs, which nobody can open."""
    readings = node.engine.slices.readings()
    agents = {agent.name: agent for agent in node.engine.agents}
    ends = await node.engine.transport.ends({place for _, place in readings})
    stored = {(reader, place): agents[reader].position(*place) for reader, place in readings}
    return [f"{reader} {place}: {at} of {ends[place]}" for (reader, place), at in stored.items() if at < ends[place]]


async def until_kept(node: Node) -> None:
    """Wait until every partition that anything was ever in is stored as read to its end."""
    async with asyncio.timeout(WAIT_S_MAX):
        while await lost(node):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["running", "stopping"])
async def test_a_partition_whose_records_are_all_deleted_is_opened_again(
    moment: str, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions behind the last markers are kept by a quiet worker, or when it stops: the next one goes on, exactly."""
    monkeypatch.setattr(keeping, "KEEP_S", 0.2 if moment == "running" else 1_000)
    site = Site(broker, tmp_path)
    first, second = [*arrivals(USERS), *purchases(60, USERS, seed=1)], purchases(60, USERS, seed=2)
    async with node_on(site) as node:
        produce(site, first)
        await quiet(node)
        await node.export.flush()
        if moment == "running":
            await until_kept(node)
            monkeypatch.setattr(Engine, "keep_positions", lambda self, known: asyncio.sleep(0, known))
    await forget(site)
    async with node_on(site) as node:
        assert not await lost(node)
        produce(site, second)
        await quiet(node)

    exactly_once(site, model_of([*first, *second]))


@pytest.mark.timeout(300)
async def test_records_deleted_unread_still_stop_the_worker(broker: Broker, tmp_path: Path) -> None:
    """Where the cluster has deleted what nobody read, the worker ends, and says so."""
    site = Site(broker, tmp_path)
    async with node_on(site) as node:
        produce(site, arrivals(USERS))
        await quiet(node)
    produce(site, purchases(40, USERS, seed=1))
    await forget(site)

    async with node_on(site) as node:
        assert node.failure is not None
        async with asyncio.timeout(WAIT_S_MAX):
            assert isinstance(await node.failure, BadState)
