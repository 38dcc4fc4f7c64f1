"""Feeds: what has arrived in the partitions that this process reads, committed records only."""

import asyncio
from collections import deque
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agents.engine.kafka.clients import new_reader
from agents.engine.kafka.topics import topic_name
from config.settings import Settings
from streams.errors import BadState
from streams.records import SLICE_BYTES_MAX, SLICE_RECORDS_MAX, Place, Record

BUFFER_RECORDS_MAX: Final = SLICE_RECORDS_MAX
PUMP_RECORDS_MAX: Final = 2 * SLICE_RECORDS_MAX
PUMP_WAIT_MS: Final = 50


class _Feed:
    """One partition: what has arrived, and how far the reader has come, holes included."""

    def __init__(self, position: int) -> None:
        self.records: deque[Record] = deque()
        self.reached = position
        self.end = position


class Feeds:
    """One reader for all partitions, pumped by a task. A full buffer is not asked for more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = new_reader(settings, "read_committed")
        self._feeds: dict[Place, _Feed] = {}
        self._tps: dict[TopicPartition, Place] = {}
        self._version = 0
        self._sought = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    async def start(self) -> None:
        """Connect."""
        await self._consumer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    def follow(self, positions: dict[Place, int]) -> None:
        """Read these places from these offsets on, and no others."""
        self._feeds = {place: _Feed(position) for place, position in positions.items()}
        self._tps = {TopicPartition(topic_name(self._settings, place[0]), place[1]): place for place in positions}
        self._version += 1
        self._taken.set()

    def read(self, place: Place, offset: int, below: int | None = None) -> list[Record]:
        """The next slice that has arrived, of records at `offset` or above, and below `below` if that is said."""
        feed = self._feeds.get(place)
        if feed is None:
            return []
        records: list[Record] = []
        size = 0
        while feed.records and len(records) < SLICE_RECORDS_MAX:
            if below is not None and feed.records[0].offset >= below:
                break
            size += len(feed.records[0].value)
            if records and size > SLICE_BYTES_MAX:
                break
            record = feed.records.popleft()
            if record.offset >= offset:
                records.append(record)
        self._taken.set()
        return records

    def appended_ms(self, place: Place, offset: int) -> int | None:
        """The append time of the next record that has arrived, at `offset` or above."""
        feed = self._feeds.get(place)
        return next((record.append_ms for record in feed.records if record.offset >= offset), None) if feed else None

    def reached(self, place: Place, offset: int) -> int:
        """How far the partition is read when nothing has arrived."""
        feed = self._feeds.get(place)
        return offset if feed is None or feed.records else max(offset, feed.reached)

    def end(self, place: Place) -> int:
        """The last stable offset as last heard of."""
        feed = self._feeds.get(place)
        return 0 if feed is None else feed.end

    async def wait(self, timeout_s: float) -> None:
        """Wait until something arrives, at most so long."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Let a waiting reader look again."""
        self._arrived.set()

    async def pump(self) -> None:
        """Move records from the reader into the buffers, for as long as the process lives."""
        while True:
            version = self._version
            if version != self._sought:
                self._seek(version)
            hungry = [tp for tp, place in self._tps.items() if len(self._feeds[place].records) < BUFFER_RECORDS_MAX]
            if not hungry:
                self._taken.clear()
                await self._taken.wait()
                continue
            try:
                fetched = await self._consumer.getmany(*hungry, timeout_ms=PUMP_WAIT_MS, max_records=PUMP_RECORDS_MAX)
            except OffsetOutOfRangeError as error:
                raise BadState(f"{error}: the log does not hold what our state wants next; see retention") from error
            if version == self._version:
                self._keep(fetched)
                await self._look(hungry, version)

    def _seek(self, version: int) -> None:
        self._sought = version
        self._consumer.assign(list(self._tps))
        for tp, place in self._tps.items():
            self._consumer.seek(tp, self._feeds[place].reached)

    def _keep(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for tp, records in fetched.items():
            self._feeds[self._tps[tp]].records.extend(
                Record(each.offset, each.timestamp, each.key, each.value or b"", each.headers) for each in records
            )
        if fetched:
            self._arrived.set()

    async def _look(self, tps: list[TopicPartition], version: int) -> None:
        """Note how far the reader is: beyond the last record where offsets hold none."""
        for tp in tps:
            reached = await self._consumer.position(tp)
            if version != self._version:
                return
            feed = self._feeds[self._tps[tp]]
            if not feed.records:
                feed.reached = reached
            feed.end = max(self._consumer.last_stable_offset(tp) or 0, reached)
