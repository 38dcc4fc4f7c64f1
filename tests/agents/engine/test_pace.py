"""Pace: one budget per turn of the loop, and work in the background behind all other."""

import asyncio

import pytest

from agents.engine import pace as pace_module
from agents.engine.pace import (
    BACKGROUND_AFTER,
    BACKGROUND_TURN_S_MAX,
    CROWD,
    SHORT_TURN_S_MAX,
    TURN_S_MAX,
    Pace,
)


async def turns(pace: Pace, name: str, count: int, taken: list[str], *, background: bool) -> None:
    """Take so many turns, and note each."""
    for _ in range(count):
        await pace.rest(background=background)
        taken.append(name)


async def test_background_work_waits_behind_all_other() -> None:
    """Whoever works in the background gets one turn after eight of the others, and all of them when they are done."""
    pace, taken = Pace(), list[str]()
    workers = [turns(pace, "b", 10, taken, background=True)]
    workers += [turns(pace, "m", 20, taken, background=False) for _ in range(2)]
    await asyncio.gather(*workers)

    assert len(taken) == 50
    before_last = "".join(taken).rindex("m")
    assert taken[:before_last].count("b") == before_last // (BACKGROUND_AFTER + 1)
    assert taken[-5:] == ["b"] * 5


async def test_background_work_is_never_still() -> None:
    """However many others there are, background work goes on at one turn in nine."""
    pace, taken = Pace(), list[str]()
    others = [asyncio.create_task(turns(pace, "m", 1_000, taken, background=False)) for _ in range(10)]
    await turns(pace, "b", 20, taken, background=True)

    assert len(taken) <= 20 * (BACKGROUND_AFTER + 1) + 1
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    assert taken.count("b") == 20


async def test_without_a_line_background_work_uses_the_turn() -> None:
    """While nobody else waits, work in the background goes on within the turn's budget, as any other does."""
    pace, order = Pace(), list[str]()
    await pace.rest()

    async def other() -> None:
        order.append("other")

    task = asyncio.create_task(other())
    await pace.breathe(background=True)
    order.append("background")
    await task
    assert order == ["background", "other"]


async def test_background_work_has_its_whole_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its turn has come it goes on until the budget is used up, whoever waits meanwhile, and no longer."""
    now_s = 0.0
    monkeypatch.setattr(pace_module, "perf_counter", lambda: now_s)
    pace, taken = Pace(), list[str]()
    others = [asyncio.create_task(turns(pace, "m", 1_000, taken, background=False)) for _ in range(3)]
    await asyncio.sleep(0)
    pieces = list[int]()
    for _ in range(5):
        await pace.rest(background=True)
        began = len(taken)
        pieces.append(0)
        while len(taken) == began:
            pieces[-1] += 1
            now_s += 0.375 * BACKGROUND_TURN_S_MAX
            await pace.breathe(background=True)

    assert set(pieces) == {3}
    for each in others:
        each.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.parametrize(("waiting", "turn_s"), [(CROWD - 1, SHORT_TURN_S_MAX), (CROWD, TURN_S_MAX)])
async def test_turns_are_long_only_in_front_of_a_crowd(waiting: int, turn_s: float) -> None:
    """Few who wait soon have their turns, each of half the length; many have theirs at less cost in all."""
    pace, found = Pace(), list[float]()

    async def turn() -> None:
        await pace.rest()
        found.append(pace._turn_s)

    await asyncio.gather(*(turn() for _ in range(waiting)))

    assert found[0] == turn_s
    assert found[-1] == SHORT_TURN_S_MAX
