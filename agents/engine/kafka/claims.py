"""Claims: a partition's changelog names the process that commits for it, so that the next owner knows whom to fence.

A process commits for all its partitions under one transactional id, which dies with it. Each partition has an id of
its own, too, under which nothing but claims is written: taking that id over, reading who owns the partition, fencing
that process and writing our own claim is safe against everyone who does the same (docs/decisions/0012).
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from agents.engine.kafka.batches import send_all
from agents.engine.kafka.clients import start_producer
from agents.engine.kafka.topics import CHANGELOG, topic_name
from agents.engine.pace import Pace
from config import metrics
from config.settings import Settings
from tables.changelog import Changelog
from tables.store import Store

NOBODY: Final = ""
RELEASE_S: Final = 0.1


class Claims:
    """The partitions' own transactional ids, as far as this process has taken them."""

    def __init__(self, settings: Settings, store: Store, pace: Pace, owner: str) -> None:
        """`owner` is the transactional id under which this process commits."""
        self._settings = settings
        self._store = store
        self._pace = pace
        self._owner = owner
        self._topic = topic_name(settings, CHANGELOG)
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._fenced = {NOBODY, owner}

    async def take(self, partition: int, restore: Callable[[], Coroutine[Any, Any, int]]) -> None:
        """Own the partition, with the store at its last commit, which `restore` brings.

        Whoever claimed it before can neither commit from now on, nor claim it again.
        """
        name = f"{self._settings.app}-{partition}"
        self._producers[partition] = await start_producer(self._settings, [self._topic], name)
        await restore()
        if self._former(partition) not in self._fenced:
            await asyncio.sleep(RELEASE_S)  # a commit is answered before it can be read, and this may be a release
            await restore()
        former = self._former(partition)
        if former not in self._fenced:
            await self._fence(former)
            await restore()  # what it committed meanwhile
        await self.renew(partition)

    def _former(self, partition: int) -> str:
        return Changelog(self._store, partition).owner

    async def _fence(self, owner: str) -> None:
        """Let no transaction of that process succeed any more; one that is open is aborted when this returns."""
        producer = await start_producer(self._settings, [self._topic], owner)
        await producer.stop()
        self._fenced.add(owner)  # an id is used by one process only, once

    async def renew(self, partition: int) -> None:
        """Claim a taken partition. Raises ProducerFenced when somebody else has taken it since."""
        changelog = Changelog(self._store, partition)
        producer = self._producers[partition]
        batch = self._store.batch(recording=True)
        changelog.stage_owner(batch, self._owner)
        await producer.begin_transaction()
        (sent,) = await send_all(producer, {(self._topic, partition): changelog.rows(batch.changes)}, self._pace)
        await sent.all()
        await producer.commit_transaction()
        changelog.stage(batch, sent.next_offset, sent.append_ms)
        metrics.CHANGELOG_BYTES.inc(sent.size)
        self._store.write(batch)

    async def drop(self, partition: int) -> None:
        """Disconnect the partition's id; the claim in the changelog stays."""
        producer = self._producers.pop(partition, None)
        if producer is not None:
            await producer.stop()

    async def stop(self) -> None:
        """Disconnect whatever is left."""
        for partition in sorted(self._producers):
            await self.drop(partition)
