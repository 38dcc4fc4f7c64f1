"""A door's status: well while the log answers, and named with its fault when it does not."""

import asyncio
from collections.abc import Iterable
from typing import cast

import pytest

from agents.engine.transport import Log
from agents.status import doorway
from agents.status.board import Board
from agents.status.doorway import Doorway
from config.clock import ManualClock
from streams.records import Place

NOW_MS = 1_750_000_000_000


class Brokers:
    """A log that answers, or not."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.answers.set()

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """After the brokers answer."""
        await self.answers.wait()
        return dict.fromkeys(places, 0)


async def test_a_door_that_does_not_reach_the_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door is OK, STALL since the first look without an answer, and OK again, each with its time."""
    monkeypatch.setattr(doorway, "ASK_S_MAX", 0.01)
    log, clock = Brokers(), ManualClock(NOW_MS)
    board = Board(Doorway(cast("Log", log), clock), clock, {"role": "door"})
    seen = []
    for answers in (True, False, False, True):
        (log.answers.set if answers else log.answers.clear)()
        await board.look()
        [door] = [each for each in board.report()["components"] if each["component"] == "Door"]
        seen.append((door["state"], door["since_ms"] - NOW_MS))
        clock.advance(1_000)
    assert seen == [("OK", 0), ("STALL", 1_000), ("STALL", 1_000), ("OK", 3_000)]
    assert board.report()["readers"] == []
