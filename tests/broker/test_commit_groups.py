"""Commit groups: what several agents hand in together is written in their order, in the store and in the changelog."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from agents.engine.kafka.clients import start_producer
from agents.engine.kafka.committer import Committer
from agents.engine.kafka.restore import restore
from agents.engine.kafka.topics import all_topics, ensure_topics
from agents.engine.pace import Pace
from config.clock import SystemClock
from streams.records import Output
from tables.store import Store
from tests.broker.kafka import Broker
from tests.broker.workers import Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

PARTITION = 2
BATCHES = 400
KEYS = 12


def rows(store: Store) -> dict[bytes, bytes]:
    """What the store holds of the family that the test writes."""
    return dict(store.scan("dispatches", b"", b"\xff"))


@pytest.mark.parametrize("seed", range(3))
async def test_batches_of_a_group_keep_their_order(broker: Broker, tmp_path: Path, seed: int) -> None:
    """Batches that put and delete the same few keys leave the last one's value, here and for whoever restores."""
    settings = Site(broker, tmp_path).settings("data")
    await ensure_topics(settings)
    dice, wanted = random.Random(seed), dict[bytes, bytes]()
    store, other = Store(tmp_path / "store"), Store(tmp_path / "other")
    producer = await start_producer(settings, all_topics(settings), f"{settings.app}-{PARTITION}")
    committer = Committer(settings, producer, store, Pace())
    committer.admit(PARTITION)
    running = asyncio.create_task(committer.run())
    waiting = []
    for number in range(BATCHES):
        batch = store.batch(recording=True)
        for _ in range(dice.randint(1, 4)):
            key = b"o" + PARTITION.to_bytes(2, "big") + b"%d" % dice.randrange(KEYS)
            if dice.random() < 0.3:
                batch.delete("dispatches", key)
                wanted.pop(key, None)
            else:
                wanted[key] = b"%d" % number
                batch.put("dispatches", key, wanted[key])
        if dice.random() < 0.5:
            committer.later(PARTITION, batch)
        else:
            waiting.append(
                asyncio.create_task(committer.commit(PARTITION, batch, [Output("currents", PARTITION, None, b"x")]))
            )
        await asyncio.sleep(0 if dice.random() < 0.95 else 0.02)
    await asyncio.gather(*waiting)
    await committer.release()
    running.cancel()
    await producer.stop()
    await restore(settings, other, PARTITION, SystemClock().now_ms())

    assert rows(store) == wanted
    assert rows(other) == wanted
    store.close()
    other.close()
