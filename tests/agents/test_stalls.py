"""Nothing that works on the loop holds a turn of it for long; `python -m tests.stalls` measures how long."""

import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents.engine import interpreter, pace
from agents.engine.engine import Engine
from agents.engine.pace import SHORT_TURN_S_MAX, TURN_S_MAX, Pace
from agents.retention import trim_once
from config.settings import Settings
from streams.records import Output
from tables import log
from tables.store import Store

UNIT_S_MAX = 0.0005


class Stopwatch:
    """Time that passes only by work."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


class Turns:
    """How much was worked in each turn of the loop."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.worked_s: list[float] = []
        self._last_s = watch.at_s
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        self.worked_s.append(self.watch.at_s - self._last_s)
        self._last_s = self.watch.at_s
        self._loop.call_soon(self._look)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    """The stopwatch that pace reads."""
    found = Stopwatch()
    monkeypatch.setattr(pace, "perf_counter", found)
    return found


@pytest.mark.parametrize("seed", range(5))
async def test_many_lanes_share_one_turn(watch: Stopwatch, seed: int) -> None:
    """However many lanes work at once, a turn of the loop is one budget and one piece, and all get through."""
    dice = random.Random(seed)
    shared, turns, done = Pace(), Turns(watch), Counter[int]()

    async def lane(number: int) -> None:
        for _ in range(100):
            await shared.breathe()
            watch.at_s += dice.uniform(0, UNIT_S_MAX)
            done[number] += 1
            if dice.random() < 0.1:
                await asyncio.sleep(0)  # as after a thread or a provider: more than one lane is ready at once

    await asyncio.gather(*(lane(number) for number in range(40)))

    assert set(done.values()) == {100}
    assert max(turns.worked_s) <= TURN_S_MAX + 41 * UNIT_S_MAX / 2
    assert sorted(turns.worked_s)[-len(turns.worked_s) // 20] <= TURN_S_MAX + 2 * UNIT_S_MAX


async def test_lanes_get_turns_in_order(watch: Stopwatch) -> None:
    """A lane with endless work does not keep another from its turn."""
    shared, order = Pace(), list[str]()

    async def lane(name: str, pieces: int) -> None:
        for _ in range(pieces):
            await shared.breathe()
            watch.at_s += TURN_S_MAX * 0.6
            order.append(name)

    await asyncio.gather(lane("a", 6), lane("b", 6), lane("c", 6))

    for end in range(1, len(order) + 1):
        pieces = Counter(order[:end])
        assert max(pieces.values()) - min(pieces[name] for name in "abc") <= 2  # a turn has room for two


async def test_a_cancelled_lane_holds_nobody_up(watch: Stopwatch) -> None:
    """Whoever is cancelled while it waits for its turn gives it to the next."""
    shared = Pace()
    watch.at_s += 1
    waiting = [asyncio.create_task(shared.breathe()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting, timeout=1)
    assert [each.cancelled() or each.done() for each in waiting] == [True, True, True]
    assert waiting[0].cancelled()


async def test_a_large_piece_gets_a_turn_of_its_own(watch: Stopwatch) -> None:
    """Who says that a piece takes long waits for a fresh turn, and who does not goes on."""
    shared, turns = Pace(), list[float]()
    await shared.breathe()
    watch.at_s += SHORT_TURN_S_MAX / 2  # nobody else waits
    before = shared._since
    await shared.breathe()
    turns.append(shared._since - before)
    await shared.breathe(SHORT_TURN_S_MAX * 0.6)
    turns.append(shared._since - before)

    assert turns == [0.0, pytest.approx(SHORT_TURN_S_MAX / 2)]


@pytest.fixture
def kept_interpreter() -> Iterator[None]:
    """Leave the interpreter of the tests as it was."""
    before, switch_s = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    sys.setswitchinterval(switch_s)


@pytest.mark.usefixtures("kept_interpreter")
def test_garbage_is_still_collected() -> None:
    """What is loaded is out of the collector's way, and a cycle made later is collected all the same.

    Threads get the interpreter's lock a tenth of a millisecond after they ask for it.
    """
    interpreter.set_up_interpreter()
    assert sys.getswitchinterval() == pytest.approx(0.0001)
    assert gc.get_freeze_count() > 1_000
    assert gc.get_threshold()[2] == interpreter.FULL_COLLECTION_AFTER
    cycle: list[object] = []
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1


async def test_retention_looks_at_few_chunks_per_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long log is trimmed in parts, and as far as one part would have gone."""
    monkeypatch.setattr(log, "TRIM_CHUNKS_MAX", 7)
    monkeypatch.setattr("agents.retention.TRIM_CHUNKS_MAX", 7)

    class Clock:
        at_ms = 0

        def now_ms(self) -> int:
            return self.at_ms

    clock, store = Clock(), Store(tmp_path / "db")
    engine = Engine(Settings(data=tmp_path, partitions=1), clock, store, tmp_path / "faust")
    for number in range(30):
        await engine.transport.append([Output("segment-changes", 0, None, str(number).encode())])
    clock.at_ms = 10**12
    await engine.transport.append([Output("segment-changes", 0, None, b"new")])

    assert await trim_once(engine) == 30
    starts = await engine.transport.starts([("segment-changes", 0)])
    assert starts == {("segment-changes", 0): 30}
    store.close()
