"""What ends a worker in the middle of its work costs nothing: nothing is lost, doubled, or acknowledged too early."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from agents.engine.kafka.clients import RECORD_BYTES_MAX
from agents.engine.kafka.topics import ensure_topics
from streams.sends import decode_send
from tables.partition import UsersView
from tables.store import Store
from tests.broker.kafka import Broker
from tests.broker.toy import read_all
from tests.broker.workers import (
    PARTITIONS,
    Site,
    Worker,
    arrivals,
    crew,
    exactly_once,
    model_of,
    modelled,
    opened,
    produce,
    purchases,
    remembered,
    settled,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

STATIC = (("MEMBER", "static"),)  # a successor need not wait for the end of the session
EXIT_FAILED = 1
EXIT_KILLED = -9
SMALL_BYTES = 200
STEPS = ("write:8:before", "write:10:before", "append:1:after", "write:7:before", "apply:100:after")


def published(site: Site, topic: str) -> int:
    """What the group's committed offsets in a topic come to, as any Kafka tool sees them."""
    reader = Consumer({"bootstrap.servers": site.broker.address, "group.id": site.app})
    places = [TopicPartition(site.topic(topic), partition) for partition in range(PARTITIONS)]
    found = reader.committed(places, timeout=20)
    reader.close()
    return sum(max(0, each.offset) for each in found)


def let_in(site: Site, topic: str, size: int) -> None:
    """Set the largest batch that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, site.topic(topic), incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": site.broker.address})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(timeout=20)


async def committed_sends(site: Site) -> list[str]:
    """The dispatch ids of the mails that a committed reader sees decided."""
    topic, places = site.topic("sends.email"), range(PARTITIONS)
    records = [record for at in places for record in await read_all(site.broker.address, topic, at)]
    return [decode_send(record.value).dispatch_id for record in records]


async def finished(site: Site) -> None:
    """Let a sound worker process what is left, and stop it."""
    async with crew() as workers:
        workers.append(Worker(site, "data"))
        await settled(*workers)
        await workers[0].stop()


async def test_kills_between_the_brokers_commit_and_the_local_write(broker: Broker, tmp_path: Path) -> None:
    """Workers killed when the broker has committed and they do not know it yet: every event counts once."""
    site = Site(broker, tmp_path, more=STATIC)
    events = arrivals(200)
    await ensure_topics(site.settings("data"))
    produce(site, events)
    for seed, step in enumerate(STEPS):
        fresh = purchases(400, 200, seed)
        produce(site, fresh)
        events += fresh
        async with crew() as workers:
            workers.append(Worker(site, "data", step))
            assert await workers[0].ended() == EXIT_KILLED, f"{step}: {workers[0].errors()}"
    await finished(site)

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)


async def test_an_error_in_the_middle_of_a_slice_acknowledges_nothing_of_it(broker: Broker, tmp_path: Path) -> None:
    """The process ends; neither state nor published positions pass the slice, and a sound worker reads it again."""
    site, events = Site(broker, tmp_path, more=STATIC), [*arrivals(200), *purchases(1_000, 200, seed=12)]
    await ensure_topics(site.settings("data"))
    produce(site, events)
    async with crew() as workers:
        workers.append(Worker(site, "data", "fail:700"))
        assert await workers[0].ended() == EXIT_FAILED
        assert "ArithmeticError: planted" in workers[0].errors()

    partial = await remembered(site)
    assert sum(count for count, *_ in partial.values()) < len(events) - 200
    assert published(site, "mailbox") <= position_in(tmp_path / "remembered")
    await finished(site)
    model = model_of(events)
    assert await remembered(site, "again") == modelled(model)
    exactly_once(site, model)


def position_in(folder: Path) -> int:
    """How many mailbox records a restored store has behind it."""
    store = Store(folder)
    try:
        view = UsersView(store)
        return sum(view.position(partition).next_offset for partition in range(PARTITIONS))
    finally:
        store.close()


@pytest.mark.parametrize("topic", ["currents", "changelog"])
async def test_a_refused_batch_ends_the_worker_and_commits_nothing(broker: Broker, tmp_path: Path, topic: str) -> None:
    """When a topic stops taking our batches, not even the other topics' half of a slice becomes visible."""
    site = Site(broker, tmp_path, more=STATIC)
    first, second = [*arrivals(100), *purchases(300, 100, seed=13)], purchases(500, 100, seed=14)
    await ensure_topics(site.settings("data"))
    async with crew() as workers:
        workers.append(Worker(site, "data"))
        await opened(workers)
        produce(site, first)
        await settled(*workers)
        before = await remembered(site, "before")
        let_in(site, topic, SMALL_BYTES)
        produce(site, second)
        assert await workers[0].ended() == EXIT_FAILED
        assert "MessageSizeTooLargeError" in workers[0].errors()

    assert await remembered(site, "after") == before
    let_in(site, topic, RECORD_BYTES_MAX)
    await finished(site)
    model = model_of(first + second)
    assert await remembered(site) == modelled(model)
    mails = [send.dispatch_id for send in model.sends if send.channel == "email"]
    assert sorted(await committed_sends(site)) == sorted(mails)
    exactly_once(site, model)
