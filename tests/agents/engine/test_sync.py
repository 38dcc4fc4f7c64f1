"""Syncs of the embedded log are shared, and none returns before its own writes are safe."""

import asyncio
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from agents.engine.embedded import EmbeddedTransport
from config.clock import SystemClock
from streams.errors import OutsideFailing
from tables.store import Store

CALLERS = 60


class Disk:
    """Stands for RocksDB's sync: what was written when it began is safe when it ends."""

    def __init__(self) -> None:
        self.written: set[int] = set()
        self.safe: set[int] = set()
        self.syncs = 0
        self.fails = False
        self._wait = threading.Event()

    def sync(self) -> None:
        """Take a moment, in a thread."""
        covered, self.syncs = set(self.written), self.syncs + 1
        self._wait.wait(0.002)
        if self.fails:
            raise OutsideFailing("the disk refuses")
        self.safe |= covered


async def transport_on(disk: Disk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedTransport:
    """A transport whose syncs go to the disk given."""
    store = Store(folder)
    monkeypatch.setattr(store, "sync", disk.sync)
    return EmbeddedTransport(store, SystemClock(), "sync", 1)


async def test_a_shared_sync_covers_everyone_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty writers who sync at random moments, some cut off, are each safe when told so, with far fewer syncs."""
    disk, dice = Disk(), random.Random(7)
    transport = await transport_on(disk, tmp_path, monkeypatch)

    async def write(number: int) -> bool:
        await asyncio.sleep(dice.uniform(0, 0.02))
        disk.written.add(number)
        await transport.sync(dice.choice((0.0, 0.0, 0.01)))
        return number in disk.safe

    tasks = [asyncio.create_task(write(number)) for number in range(CALLERS)]
    await asyncio.sleep(0.008)
    for task in tasks[::9]:
        task.cancel()
    told: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(one is True or isinstance(one, asyncio.CancelledError) for one in told)
    assert disk.syncs < CALLERS / 2


async def test_nobody_is_told_that_a_failed_sync_was_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who waited for a sync that failed hear of the failure too."""
    disk = Disk()
    disk.fails = True
    transport = await transport_on(disk, tmp_path, monkeypatch)

    told = await asyncio.gather(*(transport.sync() for _ in range(5)), return_exceptions=True)

    assert [type(one) for one in told] == [OutsideFailing] * 5
