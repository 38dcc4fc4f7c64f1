"""Pace: everyone who works on the loop shares one small budget per turn of it, in order of asking."""

import asyncio
from collections import deque
from time import perf_counter
from typing import Final

TURN_S_MAX: Final = 0.002
"""Work per turn of the loop. What a worker does between two questions comes on top, so keep that small."""

SHORT_TURN_S_MAX: Final = 0.001
CROWD: Final = 6
"""While fewer wait in line, turns are short: an answer from outside passes a dozen of them before it is of use. Behind
a crowd nobody is soon, and what a turn costs by itself counts for more."""

BACKGROUND_TURN_S_MAX: Final = 0.0005
"""Of these, for work in the background: an event passes a dozen turns of the loop on its way, and there may be work in
the background in each of them."""

BACKGROUND_AFTER: Final = 8
"""Turns that others may have in a row while work in the background waits: so that it is slow, and never still."""


class Pace:
    """One per loop. Ask with `breathe` before each small piece of work and after every other `await`.

    Without it each of some fifty lanes would do its own few milliseconds in the same turn of the loop, and
    a turn would be the sum of them. Whoever finds the budget used up waits in line; each turn wakes one.
    Work in the background, that nobody waits for, has a line of its own, behind that of all others.
    """

    def __init__(self) -> None:
        self._since = -1.0
        self._turn_s = SHORT_TURN_S_MAX
        self._line: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()
        self._in_a_row = 0
        self._is_theirs = False

    @property
    def spent(self) -> bool:
        """Whether this turn's budget is used up: `rest` before going on. For loops too short for a coroutine each."""
        return perf_counter() - self._since > self._turn_s

    @property
    def background_spent(self) -> bool:
        """The same for work in the background, whose turns are shorter."""
        return perf_counter() - self._since > BACKGROUND_TURN_S_MAX

    async def breathe(self, need_s: float = 0.0, *, background: bool = False) -> None:
        """Return at once while this turn's budget lasts, else when it is this caller's turn.

        Args:
            need_s: about how long the caller's next piece takes, if that is long for a turn.
            background: give way to everyone whose work is not: they have all turns but every ninth, and longer ones.
        """
        if background:
            gives_way = bool(self._line) and not self._is_theirs
            if gives_way or perf_counter() - self._since + need_s > BACKGROUND_TURN_S_MAX:
                await self.rest(background=True)
        elif perf_counter() - self._since + need_s > self._turn_s:
            await self.rest()

    async def rest(self, *, background: bool = False) -> None:
        """Wait in line for a turn with its whole budget, for a piece of work that cannot be divided."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not self._line and not self._background:
            loop.call_soon(self._next)
        (self._background if background else self._line).append(turn)
        await turn

    def _next(self) -> None:
        """Give the first in line its turn, and look again one turn of the loop later."""
        loop = asyncio.get_running_loop()
        self._since = perf_counter()
        self._turn_s = TURN_S_MAX if len(self._line) >= CROWD else SHORT_TURN_S_MAX
        while self._line or self._background:
            is_theirs = not self._line or (bool(self._background) and self._in_a_row >= BACKGROUND_AFTER)
            turn = (self._background if is_theirs else self._line).popleft()
            if not turn.done():  # cancelled while it waited
                self._in_a_row = 0 if is_theirs else self._in_a_row + 1
                self._is_theirs = is_theirs
                turn.set_result(None)
                break
        if self._line or self._background:
            loop.call_soon(self._next)
