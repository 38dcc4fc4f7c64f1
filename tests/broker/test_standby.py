"""A standby's copies are what the owners have, and give way at once to whoever opens the partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.engine.engine import Engine
from agents.engine.kafka.restore import restore
from agents.engine.kafka.standby import Standby
from agents.engine.kafka.topics import ensure_topics
from config.clock import SystemClock
from tables.changelog import Changelog
from tables.store import Store
from tests.broker.kafka import Broker
from tests.broker.workers import (
    LOOK_S,
    PARTITIONS,
    WAIT_S_MAX,
    Site,
    arrivals,
    exactly_once,
    model_of,
    modelled,
    node_on,
    produce,
    purchases,
    quiet,
    remembered,
    stored,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

OF_THE_FOLDER = (("meta", b"format"), ("meta", b"partitions"))


async def until(held: Callable[[], bool]) -> None:
    """Wait until partitions lie as they shall."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if held():
                return
            await asyncio.sleep(LOOK_S)


async def test_a_copy_is_what_its_owner_has(broker: Broker, tmp_path: Path) -> None:
    """Rows, timers, dispatches and positions follow while the owner works; a takeover then finds nothing to restore."""
    site, first, second = Site(broker, tmp_path), arrivals(200), purchases(800, 200, seed=41)
    ids = await ensure_topics(site.settings("data"))
    store = Store(tmp_path / "copy" / "db")
    standby = Standby(site.settings("copy"), store, ids[site.topic("changelog")], SystemClock())
    async with standby.connected():
        async with node_on(site) as node:
            produce(site, first)
            await quiet(node)
            assert await standby.step() > 0
            produce(site, second)
            await quiet(node)
        await standby.release(0)
        assert await standby.step() > 0
        lacking = [await restored(site, store, partition) for partition in range(PARTITIONS)]
        assert lacking[0] > 0
        assert lacking[1:] == [0] * (PARTITIONS - 1)
        standby.follow(0)
        assert await standby.step() == 0
    store.close()

    whole = {key: value for key, value in stored(tmp_path / "data").items() if key not in OF_THE_FOLDER}
    assert stored(tmp_path / "copy") == whole


async def restored(site: Site, store: Store, partition: int) -> int:
    """How many records a takeover would still have to read."""
    return await restore(site.settings("copy"), store, partition, SystemClock().now_ms())


async def test_a_copy_of_another_changelog_is_left_alone(broker: Broker, tmp_path: Path) -> None:
    """A folder whose changelog was deleted and made again keeps what it has, for its owner to be told at the start."""
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("data"))
    produce(site, arrivals(40))
    async with node_on(site) as node:
        await quiet(node)
    before = stored(tmp_path / "data")
    store = Store(tmp_path / "data" / "db")
    for partition in range(PARTITIONS):  # as if the new one were longer already
        changelog, batch = Changelog(store, partition), store.batch()
        changelog.stage(batch, 0, changelog.append_ms)
        store.write(batch)
    standby = Standby(site.settings("data"), store, "0" * 32, SystemClock())
    async with standby.connected():
        assert await standby.step() == 0
    store.close()

    assert stored(tmp_path / "data") == before


async def test_every_partition_that_opens_is_released_first(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first one on: one that opens while the worker still starts is never written by the standby, too."""
    real, told = Engine._open, list[bool]()

    async def opens(engine: Engine, partition: int) -> None:
        await real(engine, partition)
        assert isinstance(engine.standby, Standby)
        told.append(partition in engine.standby._released)

    monkeypatch.setattr(Engine, "_open", opens)
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("data"))
    async with node_on(site, STANDBY="true"):
        pass

    assert told == [True] * PARTITIONS


async def test_workers_with_standbys_swap_partitions_under_traffic(broker: Broker, tmp_path: Path) -> None:
    """While workers that follow one another come and go, every event is folded once and every message sent once."""
    site, events = Site(broker, tmp_path), [*arrivals(100), *purchases(900, 100, seed=43)]
    await ensure_topics(site.settings("data"))
    async with node_on(site, "a", STANDBY="true", SESSION_S="6") as first:
        produce(site, events[:400])
        async with node_on(site, "b", STANDBY="true", SESSION_S="6") as second:
            produce(site, events[400:700])
            await until(lambda: bool(first.engine.held and second.engine.held))
            await asyncio.sleep(1)
        produce(site, events[700:])
        await until(lambda: len(first.engine.held) == PARTITIONS)
        await quiet(first)

    model = model_of(events)
    assert await remembered(site) == modelled(model)
    exactly_once(site, model)
    whole = stored(tmp_path / "a")
    profiles = {key: value for key, value in whole.items() if key[0] == "users"}
    assert len(profiles) == 100
