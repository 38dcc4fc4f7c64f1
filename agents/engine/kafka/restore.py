"""Restore: a partition's store brought to its last commit from the changelog, in batches, by our own applier."""

import asyncio
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.engine.kafka.clients import new_reader
from agents.engine.kafka.topics import CHANGELOG, DELETE_RETENTION_MS, topic_name
from config import metrics
from config.settings import Settings
from streams.errors import BadState
from tables.changelog import Changelog
from tables.store import Store

BATCH_RECORDS: Final = 2_000
WAIT_MS: Final = 200
STALL_S_MAX: Final = 60.0
STALE_MS: Final = DELETE_RETENTION_MS // 2
"""A store older than this may still hold keys whose deletion the changelog has forgotten: it starts anew."""


async def restore(settings: Settings, store: Store, partition: int, now_ms: int) -> int:
    """Apply every committed change that the store lacks; returns how many records that took.

    Call it when the partition's former owner is fenced: nothing is added meanwhile, and transactions that it
    left open are over.

    Raises:
        BadState: the store is ahead of the changelog, so one of them is not the other's.
    """
    changelog = Changelog(store, partition)
    tp = TopicPartition(topic_name(settings, CHANGELOG), partition)
    reader = new_reader(settings, "read_committed")
    await reader.start()
    try:
        start = (await reader.beginning_offsets([tp]))[tp]
        end = (await reader.end_offsets([tp]))[tp]
        if changelog.next_offset > end:
            raise BadState(
                f"the data folder holds partition {partition} up to changelog offset {changelog.next_offset}, and the "
                f"changelog ends at {end}: they do not belong together; use a new HEADRACE_DATA"
            )
        is_stale = now_ms - changelog.append_ms > STALE_MS or changelog.next_offset < start
        if changelog.next_offset < end and is_stale:
            changelog.wipe()
        return await _apply(reader, tp, changelog, start, end)
    finally:
        await reader.stop()


async def _apply(reader: AIOKafkaConsumer, tp: TopicPartition, changelog: Changelog, start: int, end: int) -> int:
    reader.assign([tp])
    reader.seek(tp, max(start, changelog.next_offset))
    count = 0
    remaining = metrics.RESTORE_REMAINING.labels(str(tp.partition))
    while (position := await reader.position(tp)) < end:
        remaining.set(end - position)
        async with asyncio.timeout(STALL_S_MAX):
            fetched = await reader.getmany(tp, timeout_ms=WAIT_MS, max_records=BATCH_RECORDS)
        records = fetched.get(tp, [])
        if records:
            changelog.apply([(each.key, each.value) for each in records], records[-1].offset + 1, records[-1].timestamp)
            count += len(records)
            metrics.RESTORED_RECORDS.inc(len(records))
            await asyncio.sleep(0)
    metrics.RESTORE_REMAINING.remove(str(tp.partition))
    return count
