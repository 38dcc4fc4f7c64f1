"""Restore: what a worker folded is there again from the changelog, and what does not belong together is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from agents.engine.kafka.topics import ensure_topics
from config.clock import SystemClock
from streams.errors import BadSetting
from streams.profiles.row import decode_row
from tables.changelog import Changelog
from tables.store import Store
from tests.broker.kafka import Broker, create_topics
from tests.broker.workers import (
    PARTITIONS,
    Site,
    State,
    Worker,
    arrivals,
    crew,
    exactly_once,
    model_of,
    node_on,
    produce,
    purchases,
    quiet,
    stored,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

EXIT_FAILED = 1


async def run_over(site: Site, data: str = "data") -> State:
    """Process everything with one worker, stop it, and give what it left."""
    async with node_on(site, data) as node:
        await quiet(node)
    return stored(site.folder / data)


async def test_a_lost_or_old_folder_becomes_what_it_was(broker: Broker, tmp_path: Path) -> None:
    """Rows, timers, dispatches, positions and counts come back byte for byte to an empty and to an older folder."""
    site = Site(broker, tmp_path)
    first, second = [*arrivals(300), *purchases(1_500, 300, seed=1)], purchases(1_500, 300, seed=2)
    await ensure_topics(site.settings("data"))
    produce(site, first)
    half = await run_over(site)
    shutil.copytree(tmp_path / "data", tmp_path / "old")
    produce(site, second)
    whole = await run_over(site)
    exactly_once(site, model_of(first + second))
    assert half != whole
    timers = {(key[:2] + key[10:], int.from_bytes(key[2:10])) for family, key in whole if family == "due"}
    rows = {key: decode_row(value).timer_ms for (family, key), value in whole.items() if family == "users"}
    assert timers == {(key, timer) for key, timer in rows.items() if timer is not None}

    assert await run_over(site, "empty") == whole
    assert await run_over(site, "old") == whole
    exactly_once(site, model_of(first + second))


async def folded(site: Site) -> State:
    """Let one worker fold a little on fresh topics."""
    await ensure_topics(site.settings("data"))
    produce(site, [*arrivals(40), *purchases(60, 40, seed=3)])
    return await run_over(site)


async def refusal(site: Site, data: str = "data") -> str:
    """What a worker says that ends at once because it was asked wrongly."""
    async with crew() as workers:
        workers.append(Worker(site, data))
        assert await workers[0].ended() == EXIT_FAILED, workers[0].errors()
        return workers[0].errors().splitlines()[-1]


def drop(broker: Broker, *topics: str) -> None:
    """Delete topics, as an operator might by mistake."""
    admin = AdminClient({"bootstrap.servers": broker.address})
    for deleted in admin.delete_topics(list(topics), operation_timeout=30).values():
        deleted.result(timeout=30)


async def test_a_folder_ahead_of_the_changelog_is_refused(broker: Broker, tmp_path: Path) -> None:
    """A store that holds what the changelog never had belongs to another one: the worker says so, and keeps it."""
    site = Site(broker, tmp_path)
    before = await folded(site)
    store = Store(tmp_path / "data" / "db")
    batch = store.batch()
    Changelog(store, 1).stage(batch, 1_000_000, SystemClock().now_ms())
    store.write(batch)
    store.close()

    said = await refusal(site)
    assert re.search("partition 1 up to changelog offset 1000000.*use a new HEADRACE_DATA", said), said
    assert stored(tmp_path / "data") == before


@pytest.mark.parametrize("topic", ["events", "mailbox"])
async def test_a_recreated_topic_is_refused(broker: Broker, tmp_path: Path, topic: str) -> None:
    """Positions in a topic that was deleted mean nothing in its namesake: refused, with and without a local copy."""
    site = Site(broker, tmp_path)
    await folded(site)
    drop(broker, site.topic(topic))

    for data in ("data", "fresh"):
        assert f"topic {site.topic(topic)} is not the one that partition 0 was built" in await refusal(site, data)


async def test_a_recreated_changelog_is_refused_before_it_is_applied(broker: Broker, tmp_path: Path) -> None:
    """A folder whose changelog was deleted takes nothing from its namesake, though that one is longer by now."""
    site = Site(broker, tmp_path)
    before = await folded(site)
    drop(broker, *(site.topic(name) for name in ("changelog", "mailbox", "events", "definitions")))
    await ensure_topics(site.settings("data"))
    produce(site, [*arrivals(200), *purchases(600, 200, seed=4)])
    await run_over(site, "successor")

    assert "is not the one that partition 0 was built from" in await refusal(site)
    assert stored(tmp_path / "data") == before


async def test_another_partition_count_is_refused(broker: Broker, tmp_path: Path) -> None:
    """A worker that would hash users otherwise than the topics were written names setting, topic and fix."""
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("data"))

    with pytest.raises(BadSetting, match=rf"HEADRACE_PARTITIONS=8: topic {site.app}\.\S+ has {PARTITIONS} partitions"):
        await ensure_topics(site.settings("data", PARTITIONS="8"))


async def test_a_topic_with_its_producers_timestamps_is_refused(broker: Broker, tmp_path: Path) -> None:
    """Time is the log's own, so a topic that somebody made with CreateTime stops the start, and says what to set."""
    site = Site(broker, tmp_path)
    create_topics(broker.address, {site.topic("events"): PARTITIONS}, {"message.timestamp.type": "CreateTime"})

    with pytest.raises(BadSetting, match=rf"topic {site.topic('events')}: set message.timestamp.type=LogAppendTime"):
        await ensure_topics(site.settings("data"))
