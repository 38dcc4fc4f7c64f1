"""Transactions of other producers in the events topic: what they abort is never folded, and the holes cost nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agents.engine.kafka.topics import ensure_topics
from agents.node import Node
from tests.broker.kafka import Broker
from tests.broker.workers import (
    PARTITIONS,
    Event,
    Site,
    arrivals,
    exactly_once,
    model_of,
    modelled,
    node_on,
    produce,
    producer_of,
    purchases,
    quiet,
    remembered,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def ghosts(events: list[tuple[str, Event]]) -> list[tuple[str, Event]]:
    """The same events of users who do not exist, and of those who do."""
    return events + [(f"ghost-{user}", {**event, "external_id": f"ghost-{user}"}) for user, event in events]


async def total_lag(node: Node) -> int:
    """The sum over all agents, topics and partitions."""
    return sum(row["lag"] for row in await node.queries.lag())


async def test_aborted_records_and_markers_neither_count_nor_stall(broker: Broker, tmp_path: Path) -> None:
    """Between and behind aborted transactions every committed event counts once, no other does, and no lag is left."""
    site, events = Site(broker, tmp_path), [*arrivals(60), *purchases(600, 60, seed=31)]
    await ensure_topics(site.settings("data"))
    foreign = producer_of(site, **{"transactional.id": f"{site.app}-foreign"})
    foreign.init_transactions(30)
    async with node_on(site) as node:
        for at in range(0, len(events), 60):
            part = events[at : at + 60]
            produce(site, part[:20])
            for abort, sent in ((True, ghosts(part)), (False, part[20:]), (True, ghosts(part))):
                foreign.begin_transaction()
                await asyncio.to_thread(produce, site, sent, foreign)
                foreign.abort_transaction(30) if abort else foreign.commit_transaction(30)
        await quiet(node)
        assert await total_lag(node) == 0
        ends = await node.log.ends([("events", partition) for partition in range(PARTITIONS)])
        assert sum(ends.values()) > 3 * len(events)
        assert {place: node.engine.slices.watermark(place) for place in ends} == ends

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)


async def test_an_open_transaction_holds_up_and_lets_go(broker: Broker, tmp_path: Path) -> None:
    """What lies behind a transaction that is still open waits, counted as lag; when it is aborted, it is folded."""
    site = Site(broker, tmp_path)
    first, second = arrivals(20), purchases(50, 20, seed=32)
    await ensure_topics(site.settings("data"))
    foreign = producer_of(site, **{"transactional.id": f"{site.app}-foreign"})
    foreign.init_transactions(30)
    async with node_on(site) as node:
        produce(site, first)
        await quiet(node)
        foreign.begin_transaction()
        await asyncio.to_thread(produce, site, ghosts(first), foreign)
        produce(site, second)
        await asyncio.sleep(1)
        assert await total_lag(node) == 2 * len(first) + len(second)
        assert node.queries.totals()["purchases"] == 0
        foreign.abort_transaction(30)
        await quiet(node)
        assert await total_lag(node) == 0

    assert await remembered(site) == modelled(model_of(first + second))
