"""Pace: let the event loop breathe during long work."""

import asyncio
from time import perf_counter
from typing import Final

WORK_S_MAX: Final = 0.004


class Pace:
    """Call `breathe` between records: every few milliseconds of work it gives others a turn."""

    def __init__(self) -> None:
        self._since = perf_counter()

    async def breathe(self) -> None:
        """Yield to the loop if the work since the last turn took too long."""
        if perf_counter() - self._since > WORK_S_MAX:
            await asyncio.sleep(0)
            self._since = perf_counter()
