"""Fetches: committed records of one partition as the brokers send them, without an object for each that is kept."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from agents.engine.kafka.clients import FETCH_WAIT_MS, new_reader
from config.settings import Settings
from streams.errors import BadState

FETCH_BYTES: Final = 16 * 1024 * 1024
RETRY_S: Final = 0.1

Newest = dict[bytes, bytes | None]
"""The last value of each key, in the order in which the keys were first written; None for a deletion."""


class Fetched(NamedTuple):
    """What one request brought: batches as they lie on the broker's disk, and which transactions were aborted."""

    tp: TopicPartition
    offset: int
    data: bytes
    aborted: list[tuple[int, int]]

    @property
    def next_offset(self) -> int:
        """The offset behind the last whole batch; where there is none, the one that was asked for."""
        records, next_offset = MemoryRecords(self.data), self.offset
        while records.has_next():
            next_offset = records.next_batch().next_offset
        return next_offset

    def unpack(self, newest: Newest) -> tuple[int, int]:
        """Add the committed records; returns how many there were and when the last of them was appended, 0 for none.

        A batch counts whole, so that records below the offset that was asked for may be among them.

        Raises:
            BadState: a record has no key.
            CorruptRecordException: a batch is not what was written.
        """
        count, append_ms = 0, 0
        for batch in _Committed(self).batches():
            append_ms = batch.max_timestamp
            records = list(batch)
            count += len(records)
            for record in records:
                newest[record.key] = record.value
        if None in newest:
            raise BadState(f"{self.tp.topic}[{self.tp.partition}] holds a record without a key above {self.offset}")
        return count, append_ms


class _Committed(PartitionRecords):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's rules for what of a fetch is committed, asked batch by batch."""

    def __init__(self, fetched: Fetched) -> None:
        records = MemoryRecords(fetched.data)
        super().__init__(fetched.tp, records, fetched.aborted, fetched.offset, None, None, True, READ_COMMITTED)
        self._records_iterator = None  # it refers to us: the bytes would stay until the collector comes, which is rare

    def batches(self) -> Iterator[Any]:
        """The batches of committed records, in order."""
        while self._records.has_next():
            batch = self._records.next_batch()
            if not batch.validate_crc():
                raise CorruptRecordException(f"{self._tp}: the batch at offset {batch.base_offset} is damaged")
            self._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch:
                if self._contains_abort_marker(batch):
                    self._aborted_producers.discard(batch.producer_id)
            elif not (batch.is_transactional and batch.producer_id in self._aborted_producers):
                yield batch


class Fetches:
    """A reader of some partitions that hands out whole fetches, up to the last stable offset."""

    def __init__(self, settings: Settings, tps: list[TopicPartition]) -> None:
        """Nothing is connected before `start`."""
        self._tps = tps
        self._reader = new_reader(settings, "read_committed")

    async def start(self) -> None:
        """Connect."""
        await self._reader.start()
        self._reader.assign(self._tps)  # so that it keeps knowing the partitions' leaders…
        self._reader.pause(*self._tps)  # …but reads nothing by itself

    async def stop(self) -> None:
        """Disconnect."""
        await self._reader.stop()

    async def bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        """Of each partition the first offset that it still has, and the last stable one."""
        starts = await self._reader.beginning_offsets(self._tps)
        ends = await self._reader.end_offsets(self._tps)
        return {tp: (starts[tp], ends[tp]) for tp in self._tps}

    async def fetch(self, tp: TopicPartition, offset: int) -> Fetched:
        """What lies at an offset and behind it; asks again for as long as no broker answers for the partition.

        Raises:
            BadState: the partition does not have that offset.
            KafkaError: the broker refuses for good.
        """
        while True:
            try:
                return await self._ask(tp, offset)
            except OffsetOutOfRangeError as error:
                raise BadState(f"{tp.topic}[{tp.partition}] does not have offset {offset}") from error
            except KafkaError as error:
                if not (error.retriable or error.invalid_metadata):
                    raise
            await asyncio.sleep(RETRY_S)
            await self._reader._client.force_metadata_update()

    async def _ask(self, tp: TopicPartition, offset: int) -> Fetched:
        client = self._reader._client  # the consumer sends nothing raw
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader == -1:
            raise LeaderNotAvailableError
        place = (tp.partition, offset, FETCH_BYTES)
        request = FetchRequest(FETCH_WAIT_MS, 1, FETCH_BYTES, READ_COMMITTED, [(tp.topic, [place])])
        answer: Any = await client.send(leader, request)
        ((_, ((_, code, *fields),)),) = answer.topics
        if code:
            error: type[KafkaError] = for_code(code)
            raise error
        *_, data = fields
        aborted = next((field for field in fields if isinstance(field, list)), [])
        return Fetched(tp, offset, data or b"", aborted)
