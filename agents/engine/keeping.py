"""Keeping positions: what a quiet partition is read to is stored, before its log forgets the offset stored last.

On Kafka offsets hold no record where a transaction ended, and reports pass most records without a commit. A stored
position may so lie far behind the reader; when the cluster has deleted all that was read, nobody could open the
partition with it.
"""

import asyncio
from typing import Final

from agents.engine.engine import Engine, Positions

KEEP_S: Final = 10.0


async def run_keeping(engine: Engine) -> None:
    """Look whether a stored position has stayed where it was while its reader went on."""
    known: Positions = {}
    while True:
        await asyncio.sleep(KEEP_S)
        if not engine.slices.paused:
            known = await engine.keep_positions(known)
