"""Replays of dead letters on Kafka, by a worker that is killed while it replays."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from agents.web.replay import replay_all
from streams.events import JSONValue
from tests.broker.kafka import Broker
from tests.broker.workers import PARTITIONS, Event, Site, Worker, crew, opened, produce, settled

LETTERS = 1_500
KILLS = 2


def nameless(site: Site) -> list[tuple[str, Event]]:
    """Events that are refused, also when they are replayed: their names are numbers."""
    users = [f"user-{number % 50}" for number in range(LETTERS)]
    return [(user, {"type": "event", "external_id": user, "name": 7}) for user in users]


def replays(site: Site) -> Counter[str | bytes]:
    """What each committed record of `events` says that it is a replay of."""
    reader = Consumer(
        {
            "bootstrap.servers": site.broker.address,
            "group.id": "replays",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: Counter[str | bytes] = Counter()
    reader.assign([TopicPartition(site.topic("events"), at, 0) for at in range(PARTITIONS)])
    ended = 0
    while ended < PARTITIONS:
        message = reader.poll(10)
        assert message is not None
        if message.error():
            ended += 1
            continue
        source = dict(message.headers() or []).get("replay_of")
        if source is not None:
            found[source] += 1
    reader.close()
    return found


class Asked:
    """A worker, asked as a session of the command line asks it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def ask(self, command: str, args: dict[str, JSONValue]) -> JSONValue:
        return await self._worker.ask(command, **args)


async def all_of(worker: Worker) -> None:
    """Replay everything that it holds."""
    await replay_all(Asked(worker), reason="wrong_type", limit=0, again=False)


@pytest.mark.timeout(180)
async def test_a_worker_killed_while_it_replays_repeats_nothing(broker: Broker, tmp_path: Path) -> None:
    """Killed with -9 at random moments of a replay, again and again, every letter is back in `events` once."""
    site, dice = Site(broker, tmp_path), random.Random(1)
    async with crew() as workers:
        workers.append(Worker(site, "data", MEMBER="one"))
        await opened(workers)
        produce(site, nameless(site))
        await settled(workers[-1])
        for _ in range(KILLS):
            replaying = asyncio.create_task(all_of(workers[-1]))
            await asyncio.sleep(dice.random() * 0.4)
            workers[-1].signal(signal.SIGKILL)
            await workers[-1].ended()
            with suppress(ConnectionError, FileNotFoundError):
                await replaying
            workers.append(Worker(site, "data", MEMBER="one"))
            await opened(workers[-1:])
        await all_of(workers[-1])
        await settled(workers[-1])
        await workers[-1].stop()
    found = replays(site)
    assert set(found.values()) == {1}
    assert len(found) >= LETTERS
