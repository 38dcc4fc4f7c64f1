"""Restore: what a worker folded is there again from the changelog, and what does not belong together is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from agents.engine.kafka.topics import ensure_topics
from streams.errors import BadSetting, BadState
from streams.profiles.row import decode_row
from tables.changelog import Changelog
from tables.store import Store
from tests.broker.kafka import Broker, create_topics
from tests.broker.workers import (
    PARTITIONS,
    Site,
    State,
    arrivals,
    exactly_once,
    model_of,
    node_on,
    produce,
    purchases,
    quiet,
    stored,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


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
