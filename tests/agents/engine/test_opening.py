"""Opening partitions: nothing is read before all of them are open, and nothing is read twice."""

import asyncio
from collections import Counter
from pathlib import Path

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from config.clock import SystemClock
from config.settings import load_settings
from streams.records import Output
from tables.store import Store
from tests.agents.engine.still import Still

PARTITIONS = 4


class SlowToOpen(Still):
    """An agent that takes its time to open a partition, and remembers what it was given."""

    name = "slow"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.open_ones: set[int] = set()
        self.seen: Counter[tuple[int, int]] = Counter()

    async def open(self, partition: int) -> None:
        for _ in range(3):
            self._engine.transport.wake()  # as an append by another agent would
            await asyncio.sleep(0.02)
        self.open_ones.add(partition)

    async def close(self, partition: int) -> None:
        self.open_ones.discard(partition)

    async def handle(self, piece: Slice) -> None:
        assert len(self.open_ones) == PARTITIONS
        self.seen.update((piece.partition, record.offset) for record in piece.records)
        self._engine.slices.finish(piece)


async def test_a_backlog_is_read_once_while_partitions_open_slowly(tmp_path: Path) -> None:
    """Records that wait when a process starts come once each, though partitions open one after the other."""
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_PARTITIONS": str(PARTITIONS)})
    store = Store(tmp_path / "db")
    engine = Engine(settings, SystemClock(), store, tmp_path / "faust")
    agent = SlowToOpen(engine)
    engine.register(agent)
    places = [(partition, offset) for partition in range(PARTITIONS) for offset in range(10)]
    await engine.transport.append([Output("events", partition, None, b"{}") for partition, _ in places])

    await engine.start()
    await engine.ready()
    for _ in range(500):
        await asyncio.sleep(0.01)
        if not any(engine.slices.lag().values()):
            break
    assert await engine.stop()
    store.close()

    assert agent.seen == Counter(places)
    assert engine.failure is not None
    assert not engine.failure.done()
