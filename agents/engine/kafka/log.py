"""The log on Kafka as any client sees it: appended to, and looked at; no state, no membership."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from agents.engine.kafka.batches import Row, Target, send_all
from agents.engine.kafka.clients import new_reader, start_producer
from agents.engine.kafka.topics import all_topics, ensure_topics, topic_name
from agents.engine.pace import Pace
from config.settings import Settings
from streams.errors import OutsideFailing
from streams.records import Output, Place, Record

LOOK_WAIT_MS: Final = 100
LOOK_S_MAX: Final = 10.0


class KafkaLog:
    """Our topics on a cluster."""

    def __init__(self, settings: Settings, pace: Pace) -> None:
        """Nothing is connected before `start`."""
        self.partitions = settings.partitions
        self._settings = settings
        self._pace = pace
        self._topic_ids: dict[str, str] = {}
        self._producer: AIOKafkaProducer | None = None
        self._meter: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Create the topics that are missing, and connect."""
        self._topic_ids = await ensure_topics(self._settings)
        self._producer = await start_producer(self._settings, all_topics(self._settings))
        self._meter = new_reader(self._settings, "read_uncommitted")
        await self._meter.start()

    async def stop(self) -> None:
        """Disconnect."""
        for client in (self._producer, self._meter):
            if client is not None:
                await client.stop()

    def topic_id(self, topic: str) -> str:
        """The id that the cluster gave the topic; after `start`."""
        return self._topic_ids[topic_name(self._settings, topic)]

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """Asks the brokers. Raises OutsideFailing where none answers."""
        assert self._meter is not None
        tps = {self._tp(place): place for place in places}
        with _asking("the first offsets"):
            return {tps[tp]: offset for tp, offset in (await self._meter.beginning_offsets(list(tps))).items()}

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """Asks the brokers; what open transactions have written counts. Raises OutsideFailing where none answers."""
        assert self._meter is not None
        tps = {self._tp(place): place for place in places}
        with _asking("the last offsets"):
            return {tps[tp]: offset for tp, offset in (await self._meter.end_offsets(list(tps))).items()}

    def _tp(self, place: Place) -> TopicPartition:
        return TopicPartition(topic_name(self._settings, place[0]), place[1])

    async def look(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        """Opens a reader of its own; nothing when no committed record follows.

        Raises:
            OutsideFailing: no broker answers.
        """
        place = (topic, partition)
        tp = self._tp(place)
        start, end = (await self.starts([place]))[place], (await self.ends([place]))[place]
        with _asking(f"the records of {tp.topic}"):
            async with _reader(self._settings) as reader:
                reader.assign([tp])
                reader.seek(tp, max(start, offset))
                found: list[Record] = []
                async with asyncio.timeout(LOOK_S_MAX):
                    while not found and await reader.position(tp) < end:
                        fetched = await reader.getmany(tp, timeout_ms=LOOK_WAIT_MS, max_records=records_max)
                        found = [
                            Record(each.offset, each.timestamp, each.key, each.value or b"", each.headers)
                            for each in fetched.get(tp, [])
                        ]
                return found

    async def append(self, outputs: Sequence[Output]) -> None:
        """Idempotent and in order; an error of it ends the process."""
        assert self._producer is not None
        groups: dict[Target, list[Row]] = {}
        for output in outputs:
            target = topic_name(self._settings, output.topic), output.partition
            groups.setdefault(target, []).append((output.key, output.value, output.headers))
        sent = await send_all(self._producer, groups, self._pace)
        for each in sent:
            await each.all()


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Say in a sentence that brokers did not answer: nothing is wrong with us, and asking again may help."""
    try:
        yield
    except (KafkaConnectionError, KafkaTimeoutError, TimeoutError) as error:
        detail = f"the brokers did not tell {what} in time ({type(error).__name__}); do they answer?"
        raise OutsideFailing(detail) from error


@asynccontextmanager
async def _reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    reader = new_reader(settings, "read_committed")
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()
