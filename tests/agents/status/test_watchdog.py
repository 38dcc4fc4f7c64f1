"""The watchdog sees a blocked loop from its thread, says where it hangs, and ends the process after its limit."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agents.status import watchdog
from agents.status.watchdog import EXIT_BLOCKED, Watchdog
from config import metrics
from config.clock import ManualClock
from tests.agents.nodes import NOW_MS, ask, event, running, send, until


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watchdog ten times as impatient."""
    monkeypatch.setattr(watchdog, "LOOK_S", 0.02)
    monkeypatch.setattr(watchdog, "BLOCKED_S", 0.1)


def stalls() -> float:
    """How many the metric counts."""
    return float(metrics.WATCHDOG_STALLS.labels("loop")._value.get())


@pytest.mark.usefixtures("quick")
async def test_a_blocked_loop_is_seen_and_ended() -> None:
    """Blocked for longer than the limit: counted once, and the process is ended with the watchdog's own code."""
    ended: list[int] = []
    dog, before = Watchdog(exit_after_s=0.3, end=ended.append), stalls()
    dog.start()
    place = dog._where()
    time.sleep(0.6)  # noqa: ASYNC251 - blocking the loop is what is tested
    dog.stop()

    assert ended == [EXIT_BLOCKED]
    assert stalls() == before + 1
    assert "test_watchdog.py" in place[-2]


@pytest.mark.usefixtures("quick")
async def test_a_loop_that_turns_is_left_alone() -> None:
    """Waiting is not hanging, and a short block is counted but ends nothing."""
    ended: list[int] = []
    dog, before = Watchdog(exit_after_s=0.8, end=ended.append), stalls()
    dog.start()
    await asyncio.sleep(0.3)
    assert stalls() == before
    time.sleep(0.3)  # noqa: ASYNC251 - blocking the loop is what is tested
    await asyncio.sleep(0.2)
    dog.stop()

    assert (ended, stalls()) == ([], before + 1)
    assert dog.blocked_s < 1
    assert "watchdog" in {thread.name for thread in threading.enumerate()} or dog._stopped.is_set()


async def test_a_reader_without_progress_fails_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane that hangs is STALL after half a minute, counted once, and not live after two minutes."""
    clock = ManualClock(NOW_MS)
    release = asyncio.Event()
    async with running(tmp_path / "data", clock) as node:

        async def hang(partition: int) -> None:
            await release.wait()
            await commit(partition)

        commit: Any = node.users._commit
        monkeypatch.setattr(node.users, "_commit", hang)
        before = metrics.WATCHDOG_STALLS.labels("reader")._value.get()
        await send(node, event("ann"))
        await until(lambda: sum(lag for (topic, _), lag in node.engine.slices.lag().items() if topic == "mailbox") == 1)
        for _ in range(20):
            clock.advance(2_000)
            await node.gauges.sample()
        stalled = [row for row in node.gauges.readers() if row["status"] == "STALL"]
        assert [(row["agent"], row["topic"], row["lag"]) for row in stalled] == [("users", "mailbox", 1)]
        assert metrics.WATCHDOG_STALLS.labels("reader")._value.get() == before + 1
        assert not node._has_failed()
        components = {each["component"]: each["state"] for each in (await ask(node, "status"))["components"]}
        assert components["Segments and campaigns"] == "STALL"
        for _ in range(60):
            clock.advance(2_000)
            await node.gauges.sample()
        assert node._has_failed()
        release.set()
        await node.quiesce()
        clock.advance(2_000)
        await node.gauges.sample()
        assert not node._has_failed()
