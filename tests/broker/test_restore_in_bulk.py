"""A restore of many records: loaded or applied, whole or after a kill, it leaves what was committed, and no more."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer

from agents.engine.kafka import fetches, restore
from agents.engine.kafka.topics import ensure_topics
from config.clock import SystemClock
from streams.profiles.row import decode_timer, encode_row, new_user
from tables.changelog import Changelog, due_key
from tables.store import FAMILIES, Store
from tests.broker.kafka import Broker
from tests.broker.workers import ROOT, Site, producer_of

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

PARTITION = 2
PREFIX = b"u" + PARTITION.to_bytes(2, "big")
RECORDS_MIN = 8_000
FETCH_BYTES = 40_000
BULK_BYTES = 100_000
KILLED = "tests.broker.killed_restore"

Rows = dict[tuple[str, bytes], bytes]


def random_row(dice: random.Random) -> bytes | None:
    """A user's row, with a timer or without, or a deletion."""
    user = new_user(1_700_000_000_000)
    user.timer_ms = dice.choice([None, 1_800_000_000_000 + dice.randrange(100)])
    user.attributes["city"] = "x" * dice.randrange(40)
    return None if dice.random() < 0.1 else encode_row(user)


def write(producer: Producer, topic: str) -> Rows:
    """Transactions of changelog records, every third of them aborted; returns what a store must hold at the end."""
    dice, last = random.Random(5), dict[bytes, bytes | None]()
    producer.init_transactions(30)
    for number in range(RECORDS_MIN // 100):
        records = [(PREFIX + b"user-%d" % dice.randrange(2_000), random_row(dice)) for _ in range(150)]
        records.append((b"mposition\0" + PREFIX[1:], b"%d" % number))
        producer.begin_transaction()
        for key, value in records:
            producer.produce(topic, value, key, PARTITION)
        if number % 3 == 1:
            producer.flush()
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)
            last.update(records)
    return model(last)


def model(last: dict[bytes, bytes | None]) -> Rows:
    """What a store holds after these values, its due index included."""
    families = {b"u": "users", b"m": "meta"}
    rows = {(families[key[:1]], key[1:]): value for key, value in last.items() if value is not None}
    timers = {key: decode_timer(value) for (family, key), value in rows.items() if family == "users"}
    return rows | {("due", due_key(key, timer)): b"" for key, timer in timers.items() if timer is not None}


def held(folder: Path) -> Rows:
    """Everything in a closed store but what says how it came there."""
    store = Store(folder)
    try:
        assert not Changelog(store, PARTITION).is_loading
        return {
            (family, key): value
            for family in FAMILIES
            for key, value in store.scan(family, b"", b"\xff" * 20)
            if not key.startswith(b"changelog\0")
        }
    finally:
        store.close()


async def restored(site: Site, folder: Path) -> Rows:
    """What a store in that folder holds after a restore."""
    store = Store(folder)
    try:
        await restore.restore(site.settings("data"), store, PARTITION, SystemClock().now_ms())
    finally:
        store.close()
    return held(folder)


async def test_what_was_committed_is_restored_in_every_way(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded in bulk, applied in parts, and after a kill in the middle, rows, deletions and timers are the model's."""
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("data"))
    wanted = write(producer_of(site, **{"transactional.id": f"{site.app}-old"}), site.topic("changelog"))
    monkeypatch.setattr(fetches, "FETCH_BYTES", FETCH_BYTES)
    monkeypatch.setattr(restore, "BULK_BYTES", BULK_BYTES)

    assert await restored(site, tmp_path / "loaded") == wanted

    command = [sys.executable, "-m", KILLED, str(tmp_path / "killed"), str(PARTITION)]
    killed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=site.environment("data"))
    assert await killed.wait() == -9
    store = Store(tmp_path / "killed")
    assert Changelog(store, PARTITION).is_loading
    assert sum(1 for _ in store.scan("users", b"", b"\xff")) > 0, "it was killed before it had loaded anything"
    store.close()
    assert await restored(site, tmp_path / "killed") == wanted

    monkeypatch.setattr(restore, "BULK_RECORDS_MIN", 1_000_000)
    assert await restored(site, tmp_path / "applied") == wanted

    shutil.copytree(tmp_path / "applied", tmp_path / "again")
    assert await restored(site, tmp_path / "again") == wanted
