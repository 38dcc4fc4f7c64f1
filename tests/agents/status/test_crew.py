"""A fleet as the status board sees it: a death is told, however soon the worker is back."""

from collections.abc import Iterable
from typing import Any, cast

from agents.engine.transport import Log
from agents.status.crew import Crew
from config.clock import ManualClock
from streams.events import JSONValue
from streams.records import Place


class Empty:
    """A log without topics."""

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, 0)

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        return dict.fromkeys(places, 0)


class Asked:
    """A worker that answers, or not."""

    number = 0
    ended = ""
    answers = True

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        if not self.answers:
            raise ConnectionRefusedError
        return []


async def test_a_death_between_two_looks_is_told_once() -> None:
    """Killed and started again before anybody looked: dead for one look, then up; not back: dead until it answers."""
    member, clock = Asked(), ManualClock(1_000)
    crew = Crew([member], cast("Log", Empty()), clock)

    async def state() -> tuple[str, str]:
        clock.advance(2_000)
        (worker,) = (await crew.look()).workers
        return worker.state, worker.detail

    assert await state() == ("up", "")
    member.ended = "ended by signal 9"
    assert await state() == ("ended", "ended by signal 9")
    assert await state() == ("up", "")
    member.ended, member.answers = "ended with exit code 1", False
    assert await state() == ("ended", "ended with exit code 1")
    assert await state() == ("ended", "ended with exit code 1")
    member.answers = True
    assert [await state(), await state()] == [("ended", "ended with exit code 1"), ("up", "")]
