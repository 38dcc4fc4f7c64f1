"""Fetches: committed records as the brokers send them, a whole answer at a time."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
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

from agents.engine.kafka.clients import FETCH_WAIT_MS, READER_BYTES, new_client, new_reader
from config.settings import Settings
from streams.errors import BadState
from streams.records import Record

FETCH_BYTES: Final = READER_BYTES
"""What is read is copied five times: memory of this size is used again and again, larger ones are new pages each."""

RETRY_S: Final = 0.1

Newest = dict[bytes, bytes | None]
"""The last value of each key, in the order in which the keys were first written; None for a deletion."""


class Fetched(NamedTuple):
    """What one request brought of a partition: batches as they lie on the broker's disk, and which transactions failed.

    `stable_end` is the offset below which every transaction had ended then.
    """

    tp: TopicPartition
    offset: int
    data: bytes
    aborted: list[tuple[int, int]]
    stable_end: int = 0

    @property
    def next_offset(self) -> int:
        """The offset behind the last whole batch; where there is none, the one that was asked for."""
        records, next_offset = MemoryRecords(self.data), self.offset
        while records.has_next():
            next_offset = records.next_batch().next_offset
        return next_offset

    def records(self) -> Iterator[Record]:
        """The committed records from `offset` on, in order. Raises CorruptRecordException, as `unpack` does."""
        offset = self.offset
        for batch in _Committed(self).batches():
            for each in batch:
                if each.offset >= offset:
                    yield Record(each.offset, each.timestamp, each.key, each.value or b"", tuple(each.headers))

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
            for record in batch:
                newest[record.key] = record.value
                count += 1
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
                if not is_passing(error):
                    raise
            await asyncio.sleep(RETRY_S)
            await self._reader._client.force_metadata_update()

    async def _ask(self, tp: TopicPartition, offset: int) -> Fetched:
        client = self._reader._client  # the consumer sends nothing raw
        leader = client.cluster.leader_for_partition(tp)
        if leader is None or leader == -1:
            raise LeaderNotAvailableError
        answer = await _ask(client, leader, {tp: offset}, FETCH_BYTES, FETCH_BYTES)
        for error in answer.errors.values():
            raise error
        return answer.fetched[0]


class Reader:
    """Fetches of many partitions at once, over connections of its own: one request to a broker at a time."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected before `start`."""
        self._settings = settings
        self._client: Any = None
        self._turns: Counter[int] = Counter()

    async def start(self, topics: Iterable[str]) -> None:
        """Connect, and learn who leads these topics."""
        self._client = new_client(self._settings)
        await self._client.bootstrap()
        await self._client.set_topics(set(topics))

    async def stop(self) -> None:
        """Disconnect."""
        if self._client is not None:
            await self._client.close()

    def by_leader(self, positions: Mapping[TopicPartition, int]) -> dict[int, dict[TopicPartition, int]]:
        """The positions by the broker that leads the partition, without those that none leads: they are looked for."""
        found: dict[int, dict[TopicPartition, int]] = {}
        leaderless = False
        for tp, offset in positions.items():
            leader = self._client.cluster.leader_for_partition(tp)
            if leader is None or leader == -1:
                leaderless = True
            else:
                found.setdefault(leader, {})[tp] = offset
        if leaderless:
            self._client.force_metadata_update()
        return found

    async def fetch(
        self, leader: int, positions: Mapping[TopicPartition, int], partition_bytes: int, answer_bytes: int
    ) -> list[Fetched]:
        """What lies at the offsets and behind them, of partitions that a broker leads; nothing of those it cannot give.

        Raises:
            KafkaError: the broker refuses for good; `OffsetOutOfRangeError` where it does not have the offset.
        """
        self._turns[leader] += 1  # only of the first that has any does a broker send a batch larger than asked for
        tps = list(positions)
        turn = self._turns[leader] % len(tps)
        rotated = {tp: positions[tp] for tp in (*tps[turn:], *tps[:turn])}
        try:
            answer = await _ask(self._client, leader, rotated, partition_bytes, answer_bytes)
        except KafkaError as silent:
            answer = _Answer([], {tps[0]: silent})
        for tp, error in answer.errors.items():
            if not is_passing(error):
                raise type(error)(f"{tp.topic}[{tp.partition}] at offset {positions[tp]}") from error
        if answer.errors:
            await asyncio.sleep(RETRY_S)
            await self._client.force_metadata_update()
        return answer.fetched


def is_passing(error: KafkaError) -> bool:
    """Whether the same request may succeed later, perhaps at another broker."""
    return bool(error.retriable or error.invalid_metadata)


class _Answer(NamedTuple):
    fetched: list[Fetched]
    errors: dict[TopicPartition, KafkaError]


async def _ask(
    client: AIOKafkaClient,
    leader: int,
    positions: Mapping[TopicPartition, int],
    partition_bytes: int,
    answer_bytes: int,
) -> _Answer:
    """One request to one broker. Raises KafkaError when there is no answer."""
    places: dict[str, list[tuple[int, int, int]]] = {}
    for tp, offset in positions.items():
        places.setdefault(tp.topic, []).append((tp.partition, offset, partition_bytes))
    request = FetchRequest(FETCH_WAIT_MS, 1, answer_bytes, READ_COMMITTED, list(places.items()))
    answer: Any = await client.send(leader, request)
    found = _Answer([], {})
    for topic, partitions in answer.topics:
        for partition, code, _, stable_end, *fields in partitions:
            tp = TopicPartition(topic, partition)
            if code:
                found.errors[tp] = for_code(code)()
                continue
            aborted = next((field for field in fields if isinstance(field, list)), [])
            found.fetched.append(Fetched(tp, positions[tp], fields[-1] or b"", aborted, stable_end))
    return found
