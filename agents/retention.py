"""Retention: the log forgets what is older than its topic keeps and what every reader has passed."""

import asyncio
from typing import Final

from agents.engine.engine import Engine
from streams import topics
from tables.log import TRIM_CHUNKS_MAX

LOOK_S: Final = 60.0


async def run_retention(engine: Engine) -> None:
    """Trim every topic once a minute."""
    while True:
        await asyncio.sleep(LOOK_S)
        await trim_once(engine)


async def trim_once(engine: Engine) -> int:
    """Drop whole chunks below the position that a restart reads from; returns the number of chunks dropped."""
    dropped = 0
    for topic in topics.CATALOGUE:
        if topic.retention_s is None:
            continue
        before_ms = engine.clock.now_ms() - topic.retention_s * 1_000
        for partition in range(engine.settings.partitions):
            below = engine.kept_from(topic.name, partition)
            if below is None:
                place = (topic.name, partition)
                below = (await engine.transport.ends([place]))[place]
            dropped += await _trim(engine, topic.name, partition, below, before_ms)
    return dropped


async def _trim(engine: Engine, topic: str, partition: int, below_offset: int, before_ms: int) -> int:
    """Drop what one partition no longer keeps, a few chunks per turn of the loop."""
    total = 0
    while True:
        await engine.pace.rest()
        dropped = await engine.transport.trim(topic, partition, below_offset, before_ms)
        total += dropped
        if dropped < TRIM_CHUNKS_MAX:
            return total
