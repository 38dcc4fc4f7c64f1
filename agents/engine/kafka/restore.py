"""Restore: a partition's store brought to its last commit from the changelog, by our own applier."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol, TypeVar

from aiokafka import TopicPartition
from prometheus_client import Gauge

from agents.engine.kafka.fetches import Fetched, Fetches
from agents.engine.kafka.topics import CHANGELOG, DELETE_RETENTION_MS, topic_name
from config import metrics
from config.settings import Settings
from streams.errors import BadState
from tables.bulk_load import BulkLoad, Newest
from tables.changelog import Changelog
from tables.store import Store

STALL_S_MAX: Final = 60.0
STALE_MS: Final = DELETE_RETENTION_MS // 2
"""A store older than this may still hold keys whose deletion the changelog has forgotten: it starts anew."""

BULK_RECORDS_MIN: Final = 5_000
BULK_BYTES: Final = 32 * 1024 * 1024
"""Of the changelog that are sorted together: more make fewer files to merge later, and take memory meanwhile."""

Result = TypeVar("Result")


async def restore(settings: Settings, store: Store, partition: int, now_ms: int) -> int:
    """Apply every committed change that the store lacks; returns how many records that took.

    Call it when the partition's former owner is fenced: nothing is added meanwhile, and transactions that it
    left open are over.

    Raises:
        BadState: the store is ahead of the changelog, so one of them is not the other's.
    """
    changelog = Changelog(store, partition)
    tp = changelog_tp(settings, partition)
    fetches = Fetches(settings, [tp])
    await fetches.start()
    try:
        start, end = (await fetches.bounds())[tp]
        if changelog.next_offset > end:
            raise BadState(
                f"the data folder holds partition {partition} up to changelog offset {changelog.next_offset}, and the "
                f"changelog ends at {end}: they do not belong together; use a new HEADRACE_DATA"
            )
        prepare(changelog, start, end, now_ms)
        remaining = metrics.RESTORE_REMAINING.labels(str(partition))
        try:
            return await bring_up(fetches, tp, store, changelog, start, end, remaining)
        finally:
            metrics.RESTORE_REMAINING.remove(str(partition))
    finally:
        await fetches.stop()


def changelog_tp(settings: Settings, partition: int) -> TopicPartition:
    """The changelog of a partition, as Kafka names it."""
    return TopicPartition(topic_name(settings, CHANGELOG), partition)


def prepare(changelog: Changelog, start: int, end: int, now_ms: int) -> None:
    """Wipe what cannot be continued: a load that was cut off, or a store that may have missed deletions."""
    is_stale = now_ms - changelog.append_ms > STALE_MS or changelog.next_offset < start
    if changelog.is_loading or (changelog.next_offset < end and is_stale):
        changelog.wipe()


class _Writer(Protocol):
    """What brings fetched records into the store, in a thread."""

    def take(self, fetched: Fetched) -> int:
        """Take what was fetched; returns how many records that were."""

    def finish(self, next_offset: int) -> None:
        """Everything below the offset was taken."""


class _Tail:
    """Records on top of what the store holds; each fetch is kept for good."""

    def __init__(self, changelog: Changelog) -> None:
        self._changelog = changelog

    def take(self, fetched: Fetched) -> int:
        newest: Newest = {}
        count, append_ms = fetched.unpack(newest)
        self._changelog.apply(newest, fetched.next_offset, append_ms or self._changelog.append_ms)
        return count

    def finish(self, next_offset: int) -> None:
        """Nothing is left."""


class _Bulk:
    """Records into an empty partition, a good many sorted together."""

    def __init__(self, store: Store, changelog: Changelog, records: int) -> None:
        # glibc gives back what is freed beyond twice the largest block (of less than 32 MiB) that it ever freed.
        # Without this one each part would be written to new pages, which takes a tenth of the whole load.
        bytes(BULK_BYTES * 3 // 4)
        self._load = BulkLoad(store, changelog, records)
        self._newest: Newest = {}
        self._bytes = 0
        self._append_ms = 0

    def take(self, fetched: Fetched) -> int:
        count, append_ms = fetched.unpack(self._newest)
        self._append_ms = append_ms or self._append_ms
        self._bytes += len(fetched.data)
        if self._bytes >= BULK_BYTES:
            self._flush()
        return count

    def _flush(self) -> None:
        newest, self._newest, self._bytes = self._newest, {}, 0
        self._load.take(newest)

    def finish(self, next_offset: int) -> None:
        self._flush()
        self._load.finish(next_offset, self._append_ms)


async def bring_up(
    fetches: Fetches, tp: TopicPartition, store: Store, changelog: Changelog, start: int, end: int, remaining: Gauge
) -> int:
    """Apply what lies between the store and `end`; returns how many records. Fetches on while a thread writes."""
    position, total = max(start, changelog.next_offset), 0
    if position >= end:
        return 0
    is_bulk = changelog.next_offset == 0 and end - position >= BULK_RECORDS_MIN
    writer: _Writer = _Bulk(store, changelog, end - position) if is_bulk else _Tail(changelog)
    coming = asyncio.create_task(fetches.fetch(tp, position))
    try:
        while position < end:
            remaining.set(end - position)
            async with asyncio.timeout(STALL_S_MAX):
                while (fetched := await coming).next_offset == position:
                    coming = asyncio.create_task(fetches.fetch(tp, position))
            position = fetched.next_offset
            if position < end:
                coming = asyncio.create_task(fetches.fetch(tp, position))
            count = await _in_thread(partial(writer.take, fetched))
            total += count
            metrics.RESTORED_RECORDS.inc(count)
        await _in_thread(partial(writer.finish, position))
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
    return total


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run work in a thread, and wait until it has ended even when cancelled: the store may be closed after that."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.gather(running, return_exceptions=True)
