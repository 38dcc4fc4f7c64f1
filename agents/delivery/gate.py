"""How two lanes share what a provider takes: bulk never has all of it, and waits behind transactional."""

import asyncio
from collections import deque
from typing import Final

from streams.sends import Lane

KEPT_SHARE: Final = 4
"""One in so many places is kept for transactional sends, also while there are none: theirs is free when they come."""


def bulk_max(places: int) -> int:
    """How many of some places bulk sends may have: all but a quarter, rounded up; of a single one, that one."""
    return max(1, places - -(-places // KEPT_SHARE))


class Gate:
    """So many at once may be with a provider. Of those who wait, transactional sends go first, in order of coming.

    A bulk send goes when no transactional one waits for a place, and bulk has not its share.
    """

    def __init__(self, places: int) -> None:
        """Let in so many."""
        self._places = places
        self._bulk_max = bulk_max(places)
        self._inside: dict[Lane, int] = {"transactional": 0, "bulk": 0}
        self._waiting: dict[Lane, deque[asyncio.Future[None]]] = {"transactional": deque(), "bulk": deque()}

    async def enter(self, lane: Lane) -> None:
        """Take a place, or wait for one."""
        if not self._waiting[lane] and self._is_free(lane):
            self._inside[lane] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(lane)  # it was let in at the same moment
            raise

    def leave(self, lane: Lane) -> None:
        """Give a place back, to whoever is to have it."""
        self._inside[lane] -= 1
        for each in self._waiting:
            self._let_in(each)

    def _let_in(self, lane: Lane) -> None:
        line = self._waiting[lane]
        while line and self._is_free(lane):
            turn = line.popleft()
            if not turn.done():  # cancelled while it waited
                self._inside[lane] += 1
                turn.set_result(None)

    def _is_free(self, lane: Lane) -> bool:
        if sum(self._inside.values()) >= self._places:
            return False
        return lane == "transactional" or (self._inside["bulk"] < self._bulk_max and not self._waits("transactional"))

    def _waits(self, lane: Lane) -> bool:
        return any(not turn.done() for turn in self._waiting[lane])

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it, or waits."""
        return not (any(self._inside.values()) or any(self._waiting.values()))


class Gates:
    """The gate of a provider, and one before it for each of its hosts: a host that hangs leaves places to others."""

    def __init__(self, places: int, places_per_host: int) -> None:
        """Let in so many, and of those for one host so many."""
        self._all = Gate(places)
        self._per_host = places_per_host if places_per_host < places else 0
        self._hosts: dict[str, Gate] = {}

    async def enter(self, lane: Lane, host: str) -> None:
        """Take a place, or wait for one."""
        if not self._per_host:
            await self._all.enter(lane)
            return
        gate = self._hosts.get(host)
        if gate is None:
            gate = self._hosts[host] = Gate(self._per_host)
        await gate.enter(lane)
        try:
            await self._all.enter(lane)
        except BaseException:
            self._leave_host(lane, host)
            raise

    def leave(self, lane: Lane, host: str) -> None:
        """Give a place back, to whoever is to have it."""
        self._all.leave(lane)
        if self._per_host:
            self._leave_host(lane, host)

    def _leave_host(self, lane: Lane, host: str) -> None:
        gate = self._hosts[host]
        gate.leave(lane)
        if gate.is_empty:
            del self._hosts[host]
