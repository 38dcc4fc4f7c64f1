"""The steps at which tests kill a process are reached whatever else goes on in it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.agents import crashes

S_MAX = 10.0


class Steps:
    """Something with a step that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Barrier(2)
        self.may_end = threading.Event()

    def step(self) -> None:
        """Two of them are under way at once."""
        self.begun.wait(S_MAX)
        assert self.may_end.wait(S_MAX)


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads in which the process would have died."""
    found: list[str] = []
    monkeypatch.setitem(crashes.STEPS, "step", (Steps, "step"))
    monkeypatch.setattr(Steps, "step", Steps.step)  # so that it is put back
    monkeypatch.setattr(crashes, "die", lambda: found.append(threading.current_thread().name))
    return found


def at_once(call: Callable[[], object], release: Callable[[], object]) -> None:
    """Call something in two threads, release them, and wait for both."""
    threads = [threading.Thread(target=call, name=name) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    release()
    for thread in threads:
        thread.join(S_MAX)
        assert not thread.is_alive()


@pytest.mark.parametrize("number", [1, 2])
def test_a_step_that_is_under_way_twice_kills_once(died: list[str], number: int) -> None:
    """Two threads in the step at once, as two outboxes are: behind the one that was named the process dies."""
    crashes.kill_at(f"step:{number}:after")
    steps = Steps()
    at_once(steps.step, steps.may_end.set)

    assert len(died) == 1
