"""Standby: copies of the partitions that other workers hold, kept up so that a takeover needs only the tail."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from agents.engine.kafka.fetches import Fetches
from agents.engine.kafka.restore import bring_up, changelog_tp, prepare
from config import metrics
from config.clock import Clock
from config.settings import Settings
from tables.changelog import Changelog
from tables.store import Store

LOOK_S: Final = 0.5
_log: Final = structlog.get_logger("headrace")


class Standby:
    """Follows the changelogs of all partitions but those that were released to whoever opens them here."""

    def __init__(self, settings: Settings, store: Store, changelog_id: str, clock: Clock) -> None:
        """Nothing is followed before `run`.

        Args:
            settings: where the brokers are.
            store: where the copies are kept.
            changelog_id: the changelog topic's id as it is now; a copy of another topic is left alone.
            clock: what a copy's age is told by.
        """
        self._store = store
        self._clock = clock
        self._changelog_id = changelog_id
        self._tps = [changelog_tp(settings, partition) for partition in range(settings.partitions)]
        self._fetches = Fetches(settings, self._tps)
        self._released: set[int] = set()
        self._copied: set[int] = set()
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Follow for as long as the process lives, a moment behind; brokers that do not answer are asked again."""
        async with self.connected():
            while True:
                try:
                    await self.step()
                except (KafkaError, TimeoutError) as error:
                    _log.warning("standby copies are not kept up", error=type(error).__name__)
                await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connected meanwhile, so that `step` can be called."""
        await self._fetches.start()
        try:
            yield
        finally:
            await self._fetches.stop()

    async def release(self, partition: int) -> None:
        """Leave a partition alone from now on: it is about to be opened here. Returns when nothing writes it.

        Where this process has brought up a copy of it, the copy is promoted, which is counted and logged.
        """
        self._released.add(partition)
        async with self._locks[partition]:
            metrics.STANDBY_REMAINING.labels(str(partition)).set(0)
            if partition in self._copied:
                self._copied.discard(partition)
                metrics.STANDBY_PROMOTIONS.inc()
                _log.info("standby promoted", partition=partition, offset=Changelog(self._store, partition).next_offset)

    def follow(self, partition: int) -> None:
        """Follow a partition: it was closed here."""
        self._released.discard(partition)

    async def step(self) -> int:
        """Bring every copy up to what is committed now; returns how many records that took."""
        return sum([await self._catch_up(tp, *ends) for tp, ends in (await self._fetches.bounds()).items()])

    async def _catch_up(self, tp: TopicPartition, start: int, end: int) -> int:
        async with self._locks[tp.partition]:
            if tp.partition in self._released:
                return 0
            changelog = Changelog(self._store, tp.partition)
            if changelog.next_offset > end:
                return 0  # closed here a moment ago, and the end that we were told of is older than that
            if changelog.topic_ids.get(tp.topic, self._changelog_id) != self._changelog_id:
                _log.warning("no standby: the copy is of another changelog", partition=tp.partition)
                self._released.add(tp.partition)
                return 0
            prepare(changelog, start, end, self._clock.now_ms())
            remaining = metrics.STANDBY_REMAINING.labels(str(tp.partition))
            count = await bring_up(self._fetches, tp, self._store, changelog, start, end, remaining)
            remaining.set(0)
            self._copied.add(tp.partition)
            return count
