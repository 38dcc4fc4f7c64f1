"""Retention: the log forgets what its topic no longer keeps, by age or by bytes, once every reader has passed it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from agents.engine.engine import Engine
from config import metrics
from config.settings import Settings
from streams import topics
from streams.errors import OutsideFailing
from streams.policy.retention import Kept, read_retention
from tables.log import TRIM_CHUNKS_MAX

LOOK_S: Final = 60.0
ASK_S_MAX: Final = 30.0
_log: Final = structlog.get_logger("headrace")


async def run_retention(engine: Engine) -> None:
    """Trim every topic once a minute."""
    while True:
        await asyncio.sleep(LOOK_S)
        await trim_once(engine)


async def follow_brokers(settings: Settings, tell: Callable[[Mapping[str, int | None]], None]) -> None:
    """On Kafka: tell how long each topic is kept, in milliseconds or None for ever, now and as often as it is asked.

    While the brokers do not say, what was told last holds.
    """
    from aiokafka.errors import KafkaError  # noqa: PLC0415  # only where it is used

    from agents.engine.kafka.kept import read_kept_ms  # noqa: PLC0415

    while True:
        try:
            async with asyncio.timeout(ASK_S_MAX):
                tell(await read_kept_ms(settings))
        except (KafkaError, OutsideFailing, OSError) as error:
            _log.warning("the brokers do not say how long topics are kept", error=type(error).__name__)
        await asyncio.sleep(LOOK_S)


async def trim_once(engine: Engine) -> int:
    """Drop whole chunks below the position that a restart reads from; returns the number of chunks dropped.

    A topic's bytes are shared evenly by its partitions, as Kafka's `retention.bytes` are per partition.
    """
    dropped = 0
    limits, partitions = read_retention(engine.settings.retention), range(engine.settings.partitions)
    for name in topics.BY_NAME:
        for partition in partitions if name in limits else ():
            below = await _read_to(engine, name, partition)
            dropped += await _trim(engine, name, partition, below, limits[name])
        metrics.LOG_BYTES.labels(name).set(sum(engine.transport.size_bytes(name, at) for at in partitions))
    return dropped


async def _read_to(engine: Engine, topic: str, partition: int) -> int:
    """What every reader has passed: nothing yet where the reader's partition is not open."""
    below = engine.kept_from(topic, partition)
    if below is not None:
        return below
    if any(read.name == topic for agent in engine.agents for read in agent.reads):
        return 0
    place = (topic, partition)
    return (await engine.transport.ends([place]))[place]


async def _trim(engine: Engine, topic: str, partition: int, below_offset: int, kept: Kept) -> int:
    """Drop what one partition no longer keeps, a few chunks per turn of the loop."""
    transport, total = engine.transport, 0
    before_ms = engine.clock.now_ms() - kept.age_s * 1_000
    bytes_max = kept.size_bytes // engine.settings.partitions
    is_over = transport.size_bytes(topic, partition) > bytes_max
    while True:
        await engine.pace.rest()
        dropped = await transport.trim(topic, partition, below_offset, before_ms, bytes_max)
        total += dropped
        if dropped < TRIM_CHUNKS_MAX:
            break
    if is_over:
        # At the end the partition may still be over: what a reader has not passed stays, whatever it takes.
        stays = transport.size_bytes(topic, partition) > bytes_max
        metrics.LIMIT_HITS.labels("retention_bytes_unread" if stays else "retention_bytes").inc()
    return total
