"""Some seeds in CI, the same seed twice, the planted bugs, and the parts of the simulation themselves.

`make simulate` runs thousands of seeds; `python -m tests.simulation --planted` shows how many each bug needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.store import Store
from tests.simulation.__main__ import replay_line
from tests.simulation.disk import Disk, MemoryStore
from tests.simulation.loop import Process, Stuck, VirtualLoop
from tests.simulation.planted import PLANTS
from tests.simulation.run import Verdict, simulate

SEEDS = 20
RARE = {
    "consent_not_read_again",
    "mail_sent_again",
    "outbox_not_looked_into",
    "replay_before_its_mark",
    "row_without_offset",
    "tally_apart",  # its runs never come to rest, which takes long to see
}
"""Plants that take many seeds, or long ones: `python -m tests.simulation --planted` looks for them."""

FOUND_WITHIN = 60


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Simulated workers say what a real one would log, a thousand times over."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("first", range(0, SEEDS, 10))
def test_every_law_holds_for_these_seeds(first: int) -> None:
    """No seed of ten breaks a law, whatever was killed, frozen, cut off or refused in it."""
    red = [verdict for seed in range(first, first + 10) if (verdict := simulate(seed)).broken]

    assert red == [], "\n".join(f"{replay_line(each)}\n  {each.broken}" for each in red)


def test_a_seed_tells_the_same_again() -> None:
    """Two runs of one seed do the same in the same order, to the last event; another seed does not."""
    first, again, other = simulate(5), simulate(5), simulate(6)

    assert (first.digest, first.facts) == (again.digest, again.facts)
    assert first.digest != other.digest


def test_a_seed_tells_the_same_under_another_hash_seed() -> None:
    """The order of sets and the addresses of objects, which differ from process to process, decide nothing."""
    answers = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--seed", "8"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        answers.add(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)

    assert len(answers) == 1
    assert json.loads(answers.pop().splitlines()[-1])["broken"] == 0


def test_a_red_seed_is_red_again() -> None:
    """A seed that finds a bug finds it again, with the very same words."""
    first, again = simulate(0, "timer_late"), simulate(0, "timer_late")

    assert first.broken == again.broken != []


@pytest.mark.parametrize("plant", [name for name in PLANTS if name not in RARE])
def test_a_planted_bug_is_found(plant: str) -> None:
    """A few seeds find a bug that breaks one law, and the line of the one that did repeats it."""
    found = next((verdict for seed in range(FOUND_WITHIN) if (verdict := simulate(seed, plant)).broken), None)

    assert found is not None
    assert f"--seed {found.seed} --plant {plant}" in replay_line(found)


def test_the_line_of_a_red_seed_is_a_command() -> None:
    """What is printed for a red seed is the command that runs it again."""
    assert replay_line(Verdict(17)) == "seed 17 is red; again: python -m tests.simulation --seed 17 --tell"


Ops = st.lists(
    st.tuples(st.sampled_from(("put", "delete", "range")), st.binary(max_size=3), st.binary(max_size=3)), max_size=30
)


@settings(max_examples=25)
@given(ops=Ops, start=st.binary(max_size=2), end=st.binary(max_size=3))
def test_the_store_in_memory_answers_as_rocksdb_does(
    tmp_path_factory: pytest.TempPathFactory, ops: list[tuple[str, bytes, bytes]], start: bytes, end: bytes
) -> None:
    """After the same writes both stores give the same values, the same ranges and the same last key."""
    real, memory = Store(tmp_path_factory.mktemp("db")), MemoryStore(Disk(), None, None)
    for store in (real, memory):
        for kind, key, value in ops:
            batch = store.batch()
            if kind == "put":
                batch.put("meta", key, value)
            elif kind == "delete":
                batch.delete("meta", key)
            else:
                batch.delete_range("meta", min(key, value), max(key, value))
            store.write(batch)

    found = [
        (
            store.get_many("meta", [key for _, key, _ in ops]),
            list(store.scan("meta", start, end)),
            list(store.scan("meta", start, b"\xff" * 4, 2)),
            store.last("meta", start, end),
        )
        for store in (real, memory)
    ]
    real.close()
    assert found[0] == found[1]


def test_a_power_cut_loses_only_what_was_not_synced() -> None:
    """Over many cuts everything synced stays, and what goes is always the newest."""
    lost = set()
    for seed in range(50):
        disk = Disk()
        store = MemoryStore(disk, None, None)
        for number in range(9):
            batch = store.batch()
            batch.put("meta", b"%d" % number, b"")
            store.write(batch)
            if number == 4:
                store.sync()
        lost.add(disk.cut_power(random.Random(seed)))
        left = [key for key, _ in store.scan("meta", b"", b"\xff")]
        assert left == [b"%d" % number for number in range(len(left))]
        assert len(left) >= 5
    assert lost == {0, 1, 2, 3, 4}


def _on_a_loop(story: object, *, shuffles: bool = False, seed: int = 1) -> VirtualLoop:
    loop = VirtualLoop(random.Random(seed), shuffles=shuffles)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(story(loop))  # type: ignore[operator]
    finally:
        loop.bury()
        asyncio.set_event_loop(None)
        loop.close()
    return loop


def test_hours_pass_at_once() -> None:
    """A sleep of a day takes no time, and ends in its order."""
    done: list[int] = []

    async def sleeper(number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        done.append(number)

    async def story(loop: VirtualLoop) -> None:
        await asyncio.gather(sleeper(2, 86_400), sleeper(1, 3_600))
        assert loop.time() == pytest.approx(86_400)

    _on_a_loop(story)
    assert done == [1, 2]


def test_a_killed_process_runs_no_more_and_others_do() -> None:
    """After a kill nothing of a process runs, not even what ends a task; a frozen one goes on where it was."""
    ticks: dict[str, int] = {"killed": 0, "frozen": 0, "ended": 0}

    async def tick(name: str) -> None:
        try:
            while True:
                await asyncio.sleep(1)
                ticks[name] += 1
        finally:
            ticks["ended"] += 1

    async def story(loop: VirtualLoop) -> None:
        killed, frozen = loop.new_process("killed"), loop.new_process("frozen")
        killed.start(tick("killed"))
        frozen.start(tick("frozen"))
        await asyncio.sleep(3.5)
        killed.kill()
        frozen.frozen = True
        await asyncio.sleep(10)
        assert ticks == {"killed": 3, "frozen": 3, "ended": 0}
        loop.thaw(frozen)
        await asyncio.sleep(2.5)
        assert ticks == {"killed": 3, "frozen": 6, "ended": 0}
        assert Process.current() is None

    _on_a_loop(story)


def test_what_waits_for_nothing_is_stuck() -> None:
    """A run whose tasks wait for what nobody will bring ends at once, and says so."""

    async def story(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Stuck, match="nothing is left"):
        _on_a_loop(story)


def test_a_shuffled_loop_tries_other_orders() -> None:
    """What is ready at the same moment runs in an order that the seed decides."""

    def order(seed: int) -> tuple[int, ...]:
        done: list[int] = []

        async def story(loop: VirtualLoop) -> None:
            for number in range(4):
                loop.call_soon(done.append, number)
            await asyncio.sleep(1)

        _on_a_loop(story, shuffles=True, seed=seed)
        return tuple(done)

    assert len({order(seed) for seed in range(20)}) > 5
    assert order(3) == order(3)
