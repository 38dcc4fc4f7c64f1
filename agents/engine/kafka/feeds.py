"""Feeds: what has arrived in the partitions that this process reads, committed records only."""

import asyncio
from collections import deque
from contextlib import suppress
from time import perf_counter
from typing import Final, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from agents.engine.kafka.fetches import Fetched, Reader
from agents.engine.kafka.topics import all_topics, topic_name
from agents.engine.pace import Pace
from config.settings import Settings
from streams import topics
from streams.errors import BadState
from streams.records import SLICE_BYTES_MAX, SLICE_RECORDS_MAX, Place, Record

BUFFER_RECORDS_MAX: Final = SLICE_RECORDS_MAX
PARTITION_BYTES: Final = 512 * 1024
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
LOOK_S: Final = 0.05
PIECE_RECORDS: Final = 50


class Line(NamedTuple):
    """Topics that are asked for together, over a connection of their own, once in a gap while all is read.

    A broker answers one fetch of a connection after the other, and holds back one to which it has nothing to say:
    topics in which little happens must not hold up those in which much does. After an answer with many records the
    gap is `busy_gap_s`: each fetch, and each slice that comes of it, has a price of its own, which a loop with much to
    do makes everybody wait for.
    """

    name: str
    topics: frozenset[str]
    gap_s: float
    busy_gap_s: float

    def gap_after_s(self, records: int) -> float:
        """From the begin of a fetch that brought so many to that of the next."""
        return self.busy_gap_s if records >= BUSY_RECORDS else self.gap_s


EXPORTED: Final = frozenset({topics.CURRENTS.name})
ARRIVING: Final = frozenset({topics.EVENTS.name, topics.MAILBOX.name})
SENDS: Final = frozenset(topic.name for topic in topics.SENDS.values())
BUSY_RECORDS: Final = 60
LINES: Final = (
    Line("arriving", ARRIVING, 0.01, 0.025),
    Line("sends", SENDS, 0.01, 0.01),
    Line("exported", EXPORTED, 0.1, 0.1),
)
"""What waits for nobody is asked for as rarely as its readers allow: each fetch costs both sides."""


class _Feed:
    """One partition: what has arrived, how far the reader has come, holes included, and what to ask for next."""

    def __init__(self, tp: TopicPartition, position: int) -> None:
        self.tp = tp
        self.records: deque[Record] = deque()
        self.reached = position
        self.end = position
        self.next_offset = position
        self.is_filling = False

    @property
    def is_hungry(self) -> bool:
        return len(self.records) < BUFFER_RECORDS_MAX and not self.is_filling


class Feeds:
    """Readers for all partitions, pumped by tasks. A full buffer is not asked for more."""

    def __init__(self, settings: Settings, pace: Pace) -> None:
        self._settings = settings
        self._pace = pace
        self._readers = {line.name: Reader(settings) for line in LINES}
        self._feeds: dict[Place, _Feed] = {}
        self._places: dict[TopicPartition, Place] = {}
        self._version = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    async def start(self) -> None:
        """Connect."""
        await asyncio.gather(*(reader.start(all_topics(self._settings)) for reader in self._readers.values()))

    async def stop(self) -> None:
        """Disconnect."""
        await asyncio.gather(*(reader.stop() for reader in self._readers.values()))

    def follow(self, positions: dict[Place, int]) -> None:
        """Read these places from these offsets on, and no others."""
        self._feeds = {
            (topic, partition): _Feed(TopicPartition(topic_name(self._settings, topic), partition), position)
            for (topic, partition), position in positions.items()
        }
        self._places = {feed.tp: place for place, feed in self._feeds.items()}
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

    def has_more(self, place: Place, offset: int) -> bool:
        """Whether anything has arrived, or the reader is further than the offset."""
        feed = self._feeds.get(place)
        return feed is not None and (bool(feed.records) or feed.reached > offset)

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

    def listen(self) -> None:
        """What arrives from here on ends `wait`."""
        self._arrived.clear()

    async def wait(self, timeout_s: float) -> None:
        """Wait until something has arrived since `listen`, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()

    def wake(self) -> None:
        """Let a waiting reader look again."""
        self._arrived.set()

    # ---- pumping

    async def pump(self) -> None:
        """Move records from the brokers into the buffers, for as long as the process lives."""
        pumps = [asyncio.create_task(self._pump(line), name=f"feeds-{line.name}") for line in LINES]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, line: Line) -> None:
        """Ask every broker that leads hungry partitions, each by itself: a silent one holds up no other."""
        asked: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                for leader, wanted in self._readers[line.name].by_leader(self._hungry(line)).items():
                    if leader not in asked:
                        asked[leader] = asyncio.create_task(self._ask(line, leader, wanted, self._version))
                if asked:
                    done, _ = await asyncio.wait(asked.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                    for leader in [leader for leader, task in asked.items() if task in done]:
                        asked.pop(leader).result()
                else:
                    await self._until_taken()
        finally:
            for task in asked.values():
                task.cancel()

    async def _until_taken(self) -> None:
        self._taken.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._taken.wait()

    def _hungry(self, line: Line) -> dict[TopicPartition, int]:
        """The line's partitions with room in their buffers, and from where on each is read."""
        return {
            feed.tp: feed.next_offset
            for (topic, _), feed in self._feeds.items()
            if topic in line.topics and feed.is_hungry
        }

    async def _ask(self, line: Line, leader: int, wanted: dict[TopicPartition, int], version: int) -> None:
        """One fetch, and its records into the buffers, unless others are followed by then, or by the begin of it."""
        began = perf_counter()
        try:
            fetched = await self._readers[line.name].fetch(leader, wanted, PARTITION_BYTES, ANSWER_BYTES_MAX)
        except OffsetOutOfRangeError as error:
            if version != self._version:
                return
            raise BadState(f"{error}: the log does not hold what our state wants next; see retention") from error
        has_more = False
        records = 0
        for each in fetched:
            if version == self._version:
                records += await self._keep(self._feeds[self._places[each.tp]], each)
                has_more = has_more or each.offset < each.next_offset < each.stable_end
        left = began + line.gap_after_s(records) - perf_counter()
        if left > 0 and not has_more:
            await asyncio.sleep(left)

    async def _keep(self, feed: _Feed, fetched: Fetched) -> int:
        """Let the reader have the records, a few at a time, since a fetch may hold thousands; returns how many.

        A broker that no longer leads the partition may answer late: what was had from the next one is left out.
        """
        if feed.is_filling or feed.next_offset != fetched.offset:
            return 0
        feed.is_filling = True
        feed.end = max(fetched.stable_end, feed.reached)  # before the records: a reader of some is not caught up
        count = 0
        piece: list[Record] = []
        for count, record in enumerate(fetched.records(), 1):  # noqa: B007 - the last one is the number of them
            piece.append(record)
            if len(piece) == PIECE_RECORDS:
                self._hand_over(feed, piece)
                piece = []
                if self._pace.spent:
                    await self._pace.rest()
        self._hand_over(feed, piece)
        feed.next_offset = feed.reached = fetched.next_offset
        feed.end = max(fetched.stable_end, feed.reached)
        feed.is_filling = False
        return count

    def _hand_over(self, feed: _Feed, piece: list[Record]) -> None:
        if piece:
            feed.records.extend(piece)
            self._arrived.set()
