"""Rebalances: what a process keeps goes on where it was, whatever was in flight and whatever comes meanwhile."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from agents.engine import engine as engine_module
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from config.clock import SystemClock
from config.settings import load_settings
from streams.records import Output
from tables.store import Store
from tests.agents.engine.still import Still

RECORDS = 10


class Slow(Still):
    """An agent that handles nothing before its gate is open."""

    name = "slow"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.seen: Counter[int] = Counter()

    async def handle(self, piece: Slice) -> None:
        self.begun.set()
        await self.gate.wait()
        self.seen.update(record.offset for record in piece.records)
        self._engine.slices.finish(piece)


async def eventually_idle(engine: Engine) -> None:
    """Wait until everything wanted is open and nothing is in flight."""
    async with asyncio.timeout(10):
        while not engine.idle or any(engine.slices.lag().values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_slice_that_outlasts_a_rebalance_is_handled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice still in flight when its partition stays is waited for, not taken again."""
    monkeypatch.setattr(engine_module, "DRAIN_S_MAX", 0.05)
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_PARTITIONS": "1"})
    store = Store(tmp_path / "db")
    engine = Engine(settings, SystemClock(), store, tmp_path / "faust")
    agent = Slow(engine)
    engine.register(agent)
    await engine.transport.append([Output("events", 0, None, b"{}") for _ in range(RECORDS)])
    await engine.start()
    await agent.begun.wait()

    await engine.release()
    engine.hold({0})
    await asyncio.sleep(0.1)
    agent.gate.set()
    await eventually_idle(engine)
    await engine.stop()
    store.close()

    assert agent.seen == Counter(range(RECORDS))


async def test_a_rebalance_during_a_rebalance_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is assigned while the partitions kept are being confirmed is opened as well."""
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_PARTITIONS": "2"})
    store = Store(tmp_path / "db")
    engine = Engine(settings, SystemClock(), store, tmp_path / "faust")
    agent = Slow(engine)
    agent.gate.set()
    engine.register(agent)
    await engine.start()
    await engine.ready()

    async def slowly(partition: int) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(engine.transport, "confirm", slowly)
    for wanted in ({0}, {0, 1}):
        await engine.release()
        engine.hold(wanted)
        await asyncio.sleep(0.02)
        engine.hold({0, 1})
        await engine.transport.append([Output("events", 1, None, b"{}")])
        await eventually_idle(engine)
        assert engine.held == {0, 1}
    await engine.stop()
    store.close()
