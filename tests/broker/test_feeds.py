"""Feeds against another client: the same committed records, in order, whatever lies between and however large."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Theirs

from agents.engine.kafka.feeds import (
    ARRIVING,
    BUFFER_RECORDS_MAX,
    BUSY_RECORDS,
    LINES,
    PARTITION_BYTES,
    Feeds,
    Line,
)
from agents.engine.kafka.fetches import Fetched
from agents.engine.kafka.topics import ensure_topics
from agents.engine.pace import Pace
from config.settings import Settings
from streams import topics
from streams.records import Place, Record
from tests.broker.kafka import Broker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

PARTITIONS = 2
READ_S_MAX = 30


class Answer(Fetched):
    """An answer that holds a record for every byte of its data."""

    def records(self) -> Iterator[Record]:
        """The records."""
        for at in range(len(self.data)):
            yield Record(self.offset + at, 0, b"key", b"value")

    @property
    def next_offset(self) -> int:
        """Behind them."""
        return self.offset + len(self.data)


@pytest.fixture
async def settings(broker: Broker) -> Settings:
    """Settings of an app of its own, whose topics exist."""
    settings = Settings(broker=f"kafka://{broker.address}", app=f"feeds-{secrets.token_hex(4)}", partitions=PARTITIONS)
    await ensure_topics(settings)
    return settings


def write(settings: Settings, seed: int) -> None:
    """Records of all sizes, compressed and not, in transactions that are kept and that are aborted."""
    rng = random.Random(seed)
    address = settings.broker.partition("://")[2]
    large = {"bootstrap.servers": address, "message.max.bytes": 5_000_000, "log_level": 2}
    plain = Producer({**large, "compression.type": rng.choice(["none", "gzip"])})
    transactional = Producer({**large, "transactional.id": f"{settings.app}-writer"})
    transactional.init_transactions(30)
    number = 0
    for _ in range(12):
        is_kept = rng.random() < 0.6
        transactional.begin_transaction()
        for _ in range(rng.randrange(1, 400)):
            place = rng.choice([topics.EVENTS, topics.MAILBOX, topics.CURRENTS]).name, rng.randrange(PARTITIONS)
            size = (
                rng.choice([0, 10, 300]) if rng.random() < 0.99 else rng.choice([PARTITION_BYTES, 3 * PARTITION_BYTES])
            )
            producer = transactional if rng.random() < 0.5 else plain
            number += 1
            name = f"{settings.app}.{place[0]}"
            producer.produce(name, rng.randbytes(size), b"%d" % number, place[1], headers=[("n", b"%d" % number)])
            producer.poll(0)
        plain.flush()
        transactional.flush()
        transactional.commit_transaction(30) if is_kept else transactional.abort_transaction(30)


def theirs(settings: Settings, places: list[Place]) -> dict[Place, list[tuple[int, bytes | None, bytes]]]:
    """What librdkafka reads of the same places."""
    address = settings.broker.partition("://")[2]
    consumer = Consumer({"bootstrap.servers": address, "group.id": "theirs", "isolation.level": "read_committed"})
    consumer.assign([Theirs(f"{settings.app}.{topic}", partition, 0) for topic, partition in places])
    found: dict[Place, list[tuple[int, bytes | None, bytes]]] = {place: [] for place in places}
    quiet = 0
    while quiet < 10:
        messages = consumer.consume(500, 0.2)
        quiet = 0 if messages else quiet + 1
        for each in messages:
            place = str(each.topic()).removeprefix(f"{settings.app}."), int(each.partition() or 0)
            found[place].append((int(each.offset() or 0), each.key(), each.value() or b""))
    consumer.close()
    return found


@asynccontextmanager
async def reading(settings: Settings, places: list[Place]) -> AsyncIterator[Feeds]:
    """Feeds that follow the places from their beginning."""
    feeds = Feeds(settings, Pace())
    await feeds.start()
    feeds.follow(dict.fromkeys(places, 0))
    pump = asyncio.create_task(feeds.pump())
    try:
        yield feeds
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        await feeds.stop()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_they_read_what_another_client_reads(settings: Settings, seed: int) -> None:
    """Every committed record arrives once, in order, past aborted ones, markers and batches larger than asked for."""
    await asyncio.to_thread(write, settings, seed)
    places = [
        (topic.name, at) for topic in (topics.EVENTS, topics.MAILBOX, topics.CURRENTS) for at in range(PARTITIONS)
    ]
    wanted = await asyncio.to_thread(theirs, settings, places)
    found: dict[Place, list[Record]] = {place: [] for place in places}
    positions = dict.fromkeys(places, 0)
    async with reading(settings, places) as feeds, asyncio.timeout(READ_S_MAX):
        while any(len(found[place]) < len(wanted[place]) for place in places):
            feeds.listen()
            for place in places:
                records = feeds.read(place, positions[place])
                found[place] += records
                positions[place] = records[-1].offset + 1 if records else feeds.reached(place, positions[place])
            await feeds.wait(0.05)
        while any(feeds.reached(place, positions[place]) < feeds.end(place) for place in places):
            feeds.listen()
            await feeds.wait(0.01)  # what is left are markers, which hold no record
    assert {place: [(each.offset, each.key, each.value) for each in found[place]] for place in places} == wanted
    assert all(dict(each.headers)["n"] == each.key for records in found.values() for each in records)


async def test_buffers_are_bounded(settings: Settings) -> None:
    """While nobody takes anything, a buffer holds no more than its bound and what one fetch brings beyond it."""
    place: Place = (topics.EVENTS.name, 0)
    producer = Producer(
        {"bootstrap.servers": settings.broker.partition("://")[2], "batch.size": 65_536, "log_level": 2}
    )
    for number in range(20_000):
        producer.produce(f"{settings.app}.events", b"x" * 100, b"%d" % number, 0)
        producer.poll(0)
    await asyncio.to_thread(producer.flush)
    async with reading(settings, [place]) as feeds:
        while len(feeds._feeds[place].records) < BUFFER_RECORDS_MAX:
            feeds.listen()
            await feeds.wait(0.01)
        await asyncio.sleep(0.5)
        assert len(feeds._feeds[place].records) < BUFFER_RECORDS_MAX + PARTITION_BYTES / 100


@pytest.mark.parametrize(("records", "is_soon"), [(BUSY_RECORDS - 1, True), (BUSY_RECORDS, False)])
async def test_a_fetch_that_brings_much_is_followed_by_a_longer_gap(
    settings: Settings, records: int, *, is_soon: bool
) -> None:
    """The next fetch waits behind one with many records, and begins soon behind one with few."""
    feeds = Feeds(settings, Pace())
    feeds.follow({("events", 0): 0})
    tp = TopicPartition(f"{settings.app}.events", 0)

    class Answers:
        """A reader whose fetches bring so many records."""

        async def fetch(self, *asked: object) -> list[Fetched]:
            """One answer."""
            return [Answer(tp, 0, b"x" * records, [])]

    vars(feeds)["_readers"] = {"arriving": Answers()}
    line = Line("arriving", ARRIVING, 0.0, READ_S_MAX)
    asking = asyncio.create_task(feeds._ask(line, 0, {tp: 0}, feeds._version))
    done, _ = await asyncio.wait([asking], timeout=1)
    asking.cancel()

    assert bool(done) == is_soon
    assert len(feeds._feeds["events", 0].records) == records
    assert LINES[0].gap_s < LINES[0].busy_gap_s


async def test_an_answer_that_comes_late_is_left_out(settings: Settings) -> None:
    """A former leader's answer, after the next leader's for the same offset, brings nothing a second time."""
    feeds = Feeds(settings, Pace())
    tp = TopicPartition(f"{settings.app}.events", 0)
    feeds.follow({("events", 0): 0})

    feed = feeds._feeds["events", 0]
    for _ in range(2):
        await feeds._keep(feed, Answer(tp, 0, b"x", []))
    await feeds._keep(feed, Answer(tp, 1, b"x", []))
    assert [record.offset for record in feed.records] == [0, 1]
