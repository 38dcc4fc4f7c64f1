"""Partitions change hands under traffic: by joining and leaving, and from a worker that only seemed dead."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from agents.engine.kafka.topics import ensure_topics
from tests.agents.test_demo import export_rows
from tests.broker.kafka import Broker
from tests.broker.workers import (
    PARTITIONS,
    Site,
    Worker,
    arrivals,
    crew,
    exactly_once,
    model_of,
    modelled,
    opened,
    produce,
    produce_slowly,
    purchases,
    remembered,
    settled,
)
from tests.driver import Driver

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

SESSION_S = 6


def exported_once(site: Site, model: Driver) -> None:
    """Every purchase and every message is in the export files, each id once."""
    rows = export_rows(site.folder)
    ids = {row["id"] for row in rows}
    bought = sum(1 for row in rows if row["type"].endswith("behaviors.Purchase"))
    assert len(rows) == len(ids)
    assert bought == sum(count for count, *_ in modelled(model).values())
    assert len(rows) == bought + len(model.sends)


async def exported(*workers: Worker) -> None:
    """Write what waits for its file, and stop."""
    for worker in workers:
        await worker.ask("flush")
    for worker in workers:
        await worker.stop()


async def test_workers_join_and_leave_under_traffic(broker: Broker, tmp_path: Path) -> None:
    """Rebalances with slices in flight lose nothing and count nothing twice, in state, outbox and exports."""
    site, events = Site(broker, tmp_path), [*arrivals(300), *purchases(6_000, 300, seed=21)]
    await ensure_topics(site.settings("one"))
    async with crew() as workers:
        one = Worker(site, "one")
        workers.append(one)
        await opened([one])
        traffic = asyncio.create_task(produce_slowly(site, events, 10))
        two = Worker(site, "two")
        workers.append(two)
        await opened([one, two])
        await one.stop()
        await opened([two])
        one = Worker(site, "one")
        workers.append(one)
        await opened([one, two])
        await traffic
        await settled(one, two)
        await exported(one, two)

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)
    exported_once(site, model)


async def test_a_worker_frozen_for_two_sessions_changes_nothing_when_it_wakes(broker: Broker, tmp_path: Path) -> None:
    """Another takes over under traffic; the woken one ends, or rejoins, by itself, and nothing is there twice."""
    site = Site(broker, tmp_path, more=(("SESSION_S", str(SESSION_S)),))
    events = [*arrivals(300), *purchases(6_000, 300, seed=22)]
    await ensure_topics(site.settings("one"))
    async with crew() as workers:
        workers += [Worker(site, "one"), Worker(site, "two")]
        frozen, heir = workers
        await opened(workers)
        produce(site, events[:1_000])
        traffic = asyncio.create_task(produce_slowly(site, events[1_000:], 2 * SESSION_S))
        await asyncio.sleep(0.5)
        frozen.signal(signal.SIGSTOP)
        await asyncio.sleep(2 * SESSION_S)
        held = await heir.progress()
        assert held is not None
        assert held["partitions"] == list(range(PARTITIONS))
        frozen.signal(signal.SIGCONT)
        await traffic
        await asyncio.sleep(1)
        alive = [worker for worker in workers if worker.process.poll() is None]
        assert heir in alive
        await settled(*alive)
        await exported(*alive)

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)
    exported_once(site, model)


async def test_a_worker_frozen_before_an_attempt_does_not_repeat_its_heirs(broker: Broker, tmp_path: Path) -> None:
    """Woken between its last look and its attempt, when another has settled that dispatch, it appends nothing."""
    site = Site(broker, tmp_path, more=(("SESSION_S", str(SESSION_S)),))
    events = purchases(600, 100, seed=23)  # without addresses: webhooks alone, so that no lock of a file is held
    await ensure_topics(site.settings("one"))
    async with crew() as workers:
        frozen = Worker(site, "one", "freeze:append:1:before")
        workers.append(frozen)
        await opened([frozen])
        produce(site, events)
        heir = Worker(site, "two")
        workers.append(heir)
        await opened([heir])
        await settled(heir)
        frozen.signal(signal.SIGCONT)
        await frozen.ended()
        await settled(heir)
        await heir.stop()

    hooks = [send.dispatch_id for send in model_of(events).sends if send.channel == "webhook"]
    assert hooks
    assert Counter(site.attempted()) == Counter(hooks)
