"""When the next step of a fan-out is appended: it goes on whatever came between, and as fast as its rate allows."""

from bisect import bisect_right
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from agents import fanout
from streams.definitions import read_definitions
from streams.mailbox import FanStep, decode_letter
from streams.records import Output
from streams.times import format_time
from tests.driver import Driver, MemoryRows

LOOK_MS = 10


class _State:
    """What the store says of a partition's users, who are known from the beginning."""

    def __init__(self, rows: MemoryRows) -> None:
        self._keys = sorted(rows.stored)

    def end_of_stretch(self, after: str, limit: int) -> tuple[str | None, int]:
        """As a partition's state has it."""
        begin = bisect_right(self._keys, after)
        keys = self._keys[begin : begin + limit]
        return (keys[-1] if len(keys) == limit else None), len(keys)


class Show:
    """A fan-out to users whose steps are appended to a queue; folded, and time passes, as the test says."""

    def __init__(self, users: int, rate: int, *, partitions: int = 1, users_per_s: int = 0) -> None:
        self.driver = driver = Driver({}, partitions=partitions)
        self.at_ms = driver.now_ms + 10_000
        self.now_s = 100.0
        self.queue: list[Output] = []
        self.asked = 0
        self.change_rate(rate)
        for at in range(users):
            driver.send({"type": "attributes", "external_id": f"u{at:05}", "x": 1})
        driver.now_ms = self.at_ms
        driver.advance(0)
        engine: Any = SimpleNamespace(
            settings=SimpleNamespace(fanout_users_per_s=users_per_s),
            slices=SimpleNamespace(paused=False),
            transport=SimpleNamespace(append=self._append),
            clock=SimpleNamespace(now_ms=lambda: driver.now_ms),
        )
        states = {at: _State(rows) for at, rows in enumerate(driver.rows)}
        agent: Any = SimpleNamespace(folds=dict(enumerate(driver.folds)), states=states)
        self._fanouts = fanout._FanOuts(engine, agent)

    async def _append(self, outputs: list[Output]) -> None:
        self.queue += outputs
        self.asked += len(outputs)

    def change_rate(self, rate: int) -> None:
        """Let the campaign have another rate; 0: none."""
        schedule = {"at": format_time(self.at_ms), **({"rate": {"per_second": rate}} if rate else {})}
        campaign = {"name": "c", "schedule": schedule, "channel": "log", "message": {"text": "hi"}}
        self.driver.switch(read_definitions({"campaigns/c.yaml": campaign}))

    def fold(self) -> None:
        """Fold the steps that wait."""
        while self.queue:
            step = self.queue.pop(0)
            self.driver.deliver(step.partition, step.key, decode_letter(step.value))

    async def look(self, milliseconds: int, *, folds: bool = True) -> int:
        """Let the agent look about for so long; how many were sent."""
        before = len(self.driver.sends)
        for _ in range(milliseconds // LOOK_MS):
            await self._fanouts.look()
            if folds:
                self.fold()
            self.driver.now_ms += LOOK_MS
            self.now_s += LOOK_MS / 1_000
        return len(self.driver.sends) - before


ShowOf = Callable[..., Show]


@pytest.fixture
def show_of(monkeypatch: pytest.MonkeyPatch) -> ShowOf:
    """Shows whose time is also the agent's."""
    clock: list[Show] = []

    def make(*args: int, **more: int) -> Show:
        monkeypatch.setattr(fanout, "perf_counter", lambda: clock[0].now_s if clock else 100.0)
        clock.append(Show(*args, **more))
        return clock[0]

    return make


async def test_a_step_behind_a_pause_is_not_waited_for(show_of: ShowOf) -> None:
    """Appended before the fold knew of the pause, it is refused; behind the resume the fan-out goes on to its end."""
    show = show_of(2_000, 0)
    await show.look(LOOK_MS)
    assert len(show.driver.sends) == fanout.STEP_USERS_MAX
    await show.look(LOOK_MS, folds=False)
    assert len(show.queue) == 1
    show.driver.pause("c")
    assert await show.look(3_000) == 0
    show.driver.pause()
    await show.look(2_000)

    assert len({one.user for one in show.driver.sends}) == len(show.driver.sends) == 2_000


@pytest.mark.parametrize(("rate", "other"), [(50, 0), (0, 50), (100, 5), (5, 100)])
async def test_a_fan_out_goes_on_by_another_rate(show_of: ShowOf, rate: int, other: int) -> None:
    """A rate that is taken away, given, lowered or raised midway holds from then on, and nobody gets it twice."""
    show = show_of(2_000, rate)
    await show.look(1_000 if rate else LOOK_MS)
    show.change_rate(other)
    await show.look(1_000)
    sent = await show.look(2_000)

    if other:
        assert sent == pytest.approx(2 * other * 0.95, abs=2)
    else:
        assert not show.driver.folds[0].position.fanouts
        assert len(show.driver.sends) == 2_000
    assert len({one.user for one in show.driver.sends}) == len(show.driver.sends)


async def test_a_step_that_was_lost_is_repeated(show_of: ShowOf) -> None:
    """As behind a crash of what was to append it: without a rate it comes again when it has led nowhere."""
    show = show_of(2_000, 0)
    await show.look(LOOK_MS, folds=False)
    show.queue.clear()
    await show.look(2_000)

    assert len(show.driver.sends) == 2_000


@pytest.mark.parametrize(("partitions", "rate"), [(1, 500), (8, 500), (32, 500), (8, 2_000)])
async def test_a_rate_is_reached_at_the_default_settings(show_of: ShowOf, partitions: int, rate: int) -> None:
    """A step for a slot or two is not charged a whole stretch: once each partition has one, a twentieth is lacking."""
    show = show_of(rate * 4, rate, partitions=partitions, users_per_s=5_000)
    await show.look(500)

    assert await show.look(2_000) >= 2 * rate * 0.93


async def test_rows_are_looked_at_no_faster_than_allowed(show_of: ShowOf) -> None:
    """What the settings allow holds for a rate beyond it, too: each row is charged once, when it is first asked for."""
    show = show_of(3_000, 100_000, partitions=4, users_per_s=1_000)

    assert await show.look(2_000) == pytest.approx(2_000, abs=100)


@pytest.mark.parametrize("rate", [0, 500])
async def test_a_worker_that_is_behind_finds_few_steps(show_of: ShowOf, rate: int) -> None:
    """While nothing is folded, each partition's step is repeated once a second, and repeated ones do nothing."""
    show = show_of(3_000, rate, partitions=4)
    await show.look(60_000, folds=False)

    assert show.asked <= 4 * 70
    letters = [decode_letter(step.value) for step in show.queue]
    assert all(isinstance(each, FanStep) and each.after == "" for each in letters)
    show.fold()
    assert len({one.user for one in show.driver.sends}) == len(show.driver.sends)
