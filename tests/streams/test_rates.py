"""What a rate allows: over all partitions together, in every window of time, and when it is changed midway."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import pack
from streams.definitions import read_definitions
from streams.fanouts import FanOut
from streams.mailbox import FanStep
from streams.times import format_time
from tests.driver import Driver

LATE_MS = 50
"""How much later than its slot a message may go where a rate is of seconds."""


def to_users(count: int, rate: dict[str, int], partitions: int) -> Driver:
    """A driver with users, at the moment that a campaign with a rate begins."""
    driver = Driver({}, partitions=partitions)
    at_ms = driver.now_ms + 10_000
    change_rate(driver, rate, at_ms)
    for at in range(count):
        driver.send({"type": "attributes", "external_id": f"u{at:04}", "x": 1})
    driver.now_ms = at_ms
    driver.advance(0)
    return driver


def change_rate(driver: Driver, rate: dict[str, int], at_ms: int) -> None:
    """Let the campaign, which begins at a time, have this rate, or none."""
    schedule: dict[str, Any] = {"at": format_time(at_ms), **({"rate": rate} if rate else {})}
    campaign = {"name": "c", "schedule": schedule, "channel": "log", "message": {"text": "hi"}}
    driver.switch(read_definitions({"campaigns/c.yaml": campaign}))


def pass_time(driver: Driver, milliseconds: int) -> int:
    """Let time pass, with a step wherever a slot is free; how many were sent."""
    before = len(driver.sends)
    for _ in range(milliseconds // 20):
        driver.now_ms += 20
        for at, fold in enumerate(driver.folds):
            for fanout in list(fold.position.fanouts):
                if fold.fanning.slots(fanout, driver.now_ms):
                    driver.deliver(at, None, FanStep(fanout.number, fanout.cursor, None))
    return len(driver.sends) - before


@pytest.mark.parametrize("rate", [{"per_second": 7}, {"per_second": 500}, {"per_minute": 90}])
def test_a_rate_holds_over_all_partitions_together(rate: dict[str, int]) -> None:
    """In no second, or minute, wherever it begins, are more decided than allowed, and nearly as many as that are."""
    ((unit, most),) = rate.items()
    window_ms = 1_000 if unit == "per_second" else 60_000
    driver = to_users(8 * most, rate, 4)
    pass_time(driver, 5 * window_ms)
    times = sorted(one.decided_ms for one in driver.sends)

    assert all(sum(1 for other in times[at:] if other < time + window_ms) <= most for at, time in enumerate(times))
    assert len(times) >= 5 * most * 0.85


# ---- changed midway

phases = st.lists(st.tuples(st.sampled_from([4, 7, 40, 90]), st.integers(20, 2_000)), min_size=2, max_size=5)


@settings(max_examples=30, deadline=None)
@given(phases, st.sampled_from([1, 3, 4]))
def test_a_rate_that_is_changed_holds_from_then_on(phases: list[tuple[int, int]], partitions: int) -> None:
    """Nothing waits for the rate of before to be caught up with, and in no second are more decided than by the faster.

    Around a change a partition may be one turn ahead of where it would be by the new rate.
    """
    driver = to_users(700, {"per_second": phases[0][0]}, partitions)
    begin_ms = driver.now_ms
    changed: list[tuple[int, int]] = []
    for rate, for_ms in phases:
        change_rate(driver, {"per_second": rate}, begin_ms)
        changed.append((driver.now_ms, rate))
        sent = pass_time(driver, for_ms)
        assert sent >= rate * 0.85 * (for_ms - 40) / 1_000 - 2 * partitions
    times = sorted(one.decided_ms for one in driver.sends)

    for at, time_ms in enumerate(times):
        since_ms, until_ms = time_ms - LATE_MS, time_ms + 1_000
        ends = [until for until, _ in changed[1:]] + [driver.now_ms]
        rates = {rate for (since, rate), end in zip(changed, ends, strict=True) if since < until_ms and end > since_ms}
        most = max(rates) if len(rates) == 1 else -(-max(rates) // partitions) * partitions
        assert sum(1 for other in times[at:] if other < until_ms) <= most


def test_a_rate_that_is_lowered_after_a_while_goes_on_at_once() -> None:
    """A twentieth of the rate after ten seconds: the next second has its share, not the next minutes nothing."""
    driver = to_users(1_200, {"per_second": 100}, 2)
    begin_ms = driver.now_ms
    pass_time(driver, 10_000)
    change_rate(driver, {"per_second": 5}, begin_ms)

    assert [pass_time(driver, 2_000) for _ in range(4)] == [pytest.approx(9.5, abs=1)] * 4


def test_a_rate_that_is_taken_away_and_given_back_goes_on() -> None:
    """Without one users are let in who used no slot; with it again slots are those of then."""
    driver = to_users(1_000, {"per_second": 100}, 1)
    begin_ms = driver.now_ms
    pass_time(driver, 1_000)
    change_rate(driver, {}, begin_ms)
    fanout = driver.folds[0].position.fanouts[0]
    driver.deliver(0, None, FanStep(fanout.number, fanout.cursor, "u0899"))
    assert len(driver.sends) == 900
    driver.now_ms += 1_000
    change_rate(driver, {"per_second": 20}, begin_ms)

    assert pass_time(driver, 2_000) == pytest.approx(38, abs=2)


def test_a_fan_out_of_a_folder_of_before_goes_on() -> None:
    """A row that does not say how long its slots were is readable, and goes on where a lowered rate had stopped it."""
    driver = to_users(1_200, {"per_second": 100}, 1)
    begin_ms = driver.now_ms
    pass_time(driver, 10_000)
    change_rate(driver, {"per_second": 5}, begin_ms)
    fanouts = driver.folds[0].position.fanouts
    fanouts[0] = msgspec.msgpack.decode(pack(msgspec.to_builtins(fanouts[0])[:-1]), type=FanOut)
    assert (fanouts[0].slot_us, fanouts[0].slot > 900) == (0, True)

    assert pass_time(driver, 4_000) == pytest.approx(19, abs=1)
