"""Deadlines of many exchanges under one timer of the loop: a timer for each costs more than most of them need."""

import asyncio
from typing import Protocol


class Expiring(Protocol):
    """What a deadline is of."""

    def expire(self) -> None:
        """Its time is over."""


class Deadlines:
    """Who must be done by when: each is told once, at its time, unless it was removed until then."""

    def __init__(self) -> None:
        self._due_s: dict[Expiring, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, each: Expiring, due_s: float) -> None:
        """Tell it at a time of the running loop's clock. It has no other deadline, and nobody a later one."""
        self._due_s[each] = due_s
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(due_s, self._look)

    def remove(self, each: Expiring) -> None:
        """It is done, or nobody waits for it any more."""
        self._due_s.pop(each, None)

    def close(self) -> None:
        """Tell nobody any more."""
        self._due_s.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Tell those that are due, and look again when the first of the others is."""
        loop, self._timer = asyncio.get_running_loop(), None
        now_s = loop.time()
        for each, due_s in list(self._due_s.items()):
            if due_s > now_s:
                self._timer = loop.call_at(due_s, self._look)
                return
            del self._due_s[each]
            each.expire()
