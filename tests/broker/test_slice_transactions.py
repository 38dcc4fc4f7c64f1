"""What a transaction per slice promises, on a real broker: see docs/decisions/0002."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from tests.broker.kafka import Broker, create_topics
from tests.broker.spike import freeze_run, kill_run
from tests.broker.toy import (
    Batch,
    closed_batch,
    commit_slice,
    read_all,
    read_all_with_librdkafka,
    started_producer,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

SMALL_BYTES_MAX = 1_000


@pytest.fixture
def topic(broker: Broker) -> str:
    """A fresh topic of one partition."""
    name = f"slices-{uuid.uuid4().hex}"
    create_topics(broker.address, {name: 1})
    return name


@pytest.fixture
def small_topic(broker: Broker) -> str:
    """A fresh topic that refuses batches of more than 1,000 bytes."""
    name = f"small-{uuid.uuid4().hex}"
    create_topics(broker.address, {name: 1}, {"max.message.bytes": str(SMALL_BYTES_MAX)})
    return name


@asynccontextmanager
async def owner(broker: Broker, id_: str, *topics: str) -> AsyncIterator[AIOKafkaProducer]:
    """The producer that owns this transactional id from now on."""
    producer = await started_producer(broker.address, id_, topics)
    try:
        yield producer
    finally:
        await producer.stop()


def batch(producer: AIOKafkaProducer, topic: str, *values: bytes) -> Batch:
    """A closed batch of these values for partition 0."""
    return topic, 0, closed_batch(producer, [(b"user", value) for value in values])


async def send(producer: AIOKafkaProducer, made: Batch) -> None:
    """Send one batch and wait until the broker has it."""
    topic, partition, builder = made
    await (await producer.send_batch(builder, topic, partition=partition))


async def values_in(broker: Broker, topic: str, level: str = "read_committed") -> list[bytes]:
    """Every value that a reader of that level sees, in order."""
    return [record.value for record in await read_all(broker.address, topic, level=level)]


def test_kill_9_five_times_gives_exactly_the_fold(broker: Broker) -> None:
    """A worker killed five times, between and inside slices, leaves the output and state of one clean run."""
    seen = kill_run(broker.address, kills=5, seed=5)

    assert (
        seen["lost"],
        seen["doubled"],
        seen["exact"],
        seen["exact_for_librdkafka"],
    ) == (0, 0, True, True)


def test_without_transactions_the_same_kills_double_records(broker: Broker) -> None:
    """The kill test can fail: with acknowledged batches but no transaction, outputs come twice."""
    assert kill_run(broker.address, kills=2, seed=5, transactional=False)["doubled"] > 0


def test_frozen_worker_cannot_commit_once_another_took_over(broker: Broker) -> None:
    """A worker stopped inside a slice and woken after its successor ends fenced and changes nothing."""
    seen = freeze_run(broker.address, "acked", seed=5)

    assert (seen["woken"], seen["exact"]) == ("failed ProducerFenced", True)
    assert seen["rolled_back"] > 0


async def test_fenced_producer_cannot_commit(broker: Broker, topic: str) -> None:
    """Taking over a transactional id aborts what its old owner left open; the old owner's commit fails."""
    async with owner(broker, topic, topic) as old:
        await old.begin_transaction()
        await send(old, batch(old, topic, b"zombie"))
        async with owner(broker, topic, topic) as new:
            await commit_slice(new, [batch(new, topic, b"heir")])
            with pytest.raises(ProducerFenced):
                await old.commit_transaction()

    assert await values_in(broker, topic) == [b"heir"]
    assert await values_in(broker, topic, "read_uncommitted") == [b"zombie", b"heir"]


async def test_committed_reader_tolerates_holes(broker: Broker, topic: str) -> None:
    """Markers and aborted slices, also as the last thing in the log, cost a committed reader only offsets."""
    async with owner(broker, topic, topic) as producer:
        for number in range(3):
            await commit_slice(producer, [batch(producer, topic, b"%d" % number)])
            await producer.begin_transaction()
            await send(producer, batch(producer, topic, b"aborted"))
            await producer.abort_transaction()

    records = await read_all(broker.address, topic)
    assert [(record.offset, record.value) for record in records] == [(0, b"0"), (4, b"1"), (8, b"2")]
    assert read_all_with_librdkafka(broker.address, topic) == [b"0", b"1", b"2"]


async def test_refused_batch_stops_the_whole_slice(broker: Broker, topic: str, small_topic: str) -> None:
    """One batch that the broker refuses raises before the commit, and nothing of the slice is ever seen."""
    async with owner(broker, topic, topic, small_topic) as producer:
        refused = batch(producer, small_topic, b"x" * 2 * SMALL_BYTES_MAX)
        with pytest.raises(MessageSizeTooLargeError):
            await commit_slice(producer, [batch(producer, topic, b"half"), refused])
    async with owner(broker, topic, topic, small_topic) as heir:
        await commit_slice(heir, [batch(heir, topic, b"whole"), batch(heir, small_topic, b"whole")])

    assert await values_in(broker, topic) == [b"whole"]
    assert await values_in(broker, small_topic) == [b"whole"]


async def test_aiokafka_itself_commits_around_a_refused_batch(broker: Broker, topic: str, small_topic: str) -> None:
    """Why `commit_slice` awaits its batches: the library's commit succeeds with half of the slice."""
    async with owner(broker, topic, topic, small_topic) as producer:
        await producer.begin_transaction()
        refused = batch(producer, small_topic, b"x" * 2 * SMALL_BYTES_MAX)
        acks = [
            await producer.send_batch(made, name, partition=0)
            for name, _, made in (batch(producer, topic, b"half"), refused)
        ]
        await producer.commit_transaction()

    assert await values_in(broker, topic) == [b"half"]
    assert isinstance(acks[1].exception(), MessageSizeTooLargeError)
