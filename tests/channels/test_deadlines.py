"""Deadlines of many under one timer, held to a timer for each."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.deadlines import Deadlines
from tests.simulation.loop import VirtualLoop

AFTER_S = 10


class Waiting:
    """Notes when it was told."""

    def __init__(self) -> None:
        self.told_s: list[float] = []

    def expire(self) -> None:
        self.told_s.append(asyncio.get_running_loop().time())


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2 * AFTER_S)), max_size=20))
def test_each_is_told_at_its_own_time(spans: list[tuple[int, int]]) -> None:
    """Whatever begins and ends in whatever order, those that last too long are told once, exactly then; no other is."""
    loop = VirtualLoop(random.Random(0), shuffles=False)
    began: list[float] = []
    everyone: list[Waiting] = []

    async def one(deadlines: Deadlines, lasts_s: int) -> None:
        waiting = Waiting()
        everyone.append(waiting)
        began.append(loop.time())
        deadlines.add(waiting, loop.time() + AFTER_S)
        await asyncio.sleep(lasts_s + 0.5)
        deadlines.remove(waiting)

    async def play() -> None:
        deadlines = Deadlines()
        tasks = []
        for gap_s, lasts_s in spans:
            await asyncio.sleep(gap_s)
            tasks.append(asyncio.create_task(one(deadlines, lasts_s)))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    loop.run_until_complete(play())
    loop.close()

    expected = [
        [since_s + AFTER_S] if lasts_s + 0.5 > AFTER_S else []
        for since_s, (_, lasts_s) in zip(began, spans, strict=True)
    ]
    assert [pytest.approx(each) for each in expected] == [waiting.told_s for waiting in everyone]


async def test_nobody_is_told_after_the_end() -> None:
    """Once closed nobody is told, and what ends later is removed without harm."""
    deadlines, waiting = Deadlines(), Waiting()
    deadlines.add(waiting, asyncio.get_running_loop().time() + 0.01)
    deadlines.close()
    await asyncio.sleep(0.03)
    deadlines.remove(waiting)

    assert waiting.told_s == []
