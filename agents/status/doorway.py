"""A door as the status board sees it: it takes events as long as it reaches the log."""

import asyncio
from typing import Final

from aiokafka.errors import KafkaError

from agents.engine.transport import Log
from agents.status.board import Look
from agents.status.families import families_of
from config import metrics
from config.clock import Clock
from streams import topics
from streams.errors import HeadraceError
from streams.health import Worker

ASK_S_MAX: Final = 1.0


class Doorway:
    """Implements `Source` for a process that is only a door: it reads nothing, so it has no lag to show."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._state = "starting"
        self._since_ms = clock.now_ms()

    async def look(self) -> Look:
        """Whether the log answers within a second, and what this process counts."""
        state = "up" if await self._reaches() else "cut off"
        now_ms = self._clock.now_ms()
        if state != self._state:
            self._state, self._since_ms = state, now_ms
        worker = Worker("door", state, self._since_ms)
        return Look(now_ms, {"": families_of(metrics.REGISTRY)}, [], [worker])

    async def _reaches(self) -> bool:
        try:
            async with asyncio.timeout(ASK_S_MAX):
                await self._log.ends([(topics.EVENTS.name, 0)])
        except (KafkaError, HeadraceError, OSError):  # TimeoutError is an OSError
            return False
        return True
