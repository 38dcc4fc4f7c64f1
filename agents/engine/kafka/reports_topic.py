"""Reports on Kafka: every partition's counters as its owner tells them, for doors and fleets, which hold no state."""

import asyncio
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from agents.engine.kafka.clients import new_reader
from agents.engine.kafka.topics import topic_name
from agents.report_source import Row
from config.settings import Settings
from streams import topics
from streams.errors import OutsideFailing
from streams.reports import About, Bucket, Counts, Unit
from tables.reports import read_counts_key, read_told

WAIT_MS: Final = 200
RECORDS_MAX: Final = 500
LOAD_S_MAX: Final = 30.0
RETRY_S: Final = 1.0
_log: Final = structlog.get_logger("headrace")


class TopicReports:
    """Implements `ReportSource`: from the first question on it follows the topic, a moment behind.

    Memory: about half a kilobyte for each campaign, variant, partition and bucket.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is connected before the first question."""
        self._settings = settings
        self._counts: dict[tuple[Unit, str], dict[bytes, Row]] = {}
        self._abouts: dict[bytes, tuple[str, About]] = {}
        self._following: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()

    async def totals(self) -> list[Row]:
        """The counts over all time."""
        await self._ready()
        return [row for (unit, _), rows in self._counts.items() if unit == "all" for row in rows.values()]

    async def series(self, campaign: str, unit: Unit) -> list[Row]:
        """A campaign's counts by the day or hour."""
        await self._ready()
        return list(self._counts.get((unit, campaign), {}).values())

    async def abouts(self) -> list[tuple[str, About]]:
        """What is known of each campaign."""
        await self._ready()
        return list(self._abouts.values())

    async def stop(self) -> None:
        """Follow no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _ready(self) -> None:
        """Wait until everything that was told before now is known. Raises OutsideFailing when that takes too long."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name="reports-topic")
        try:
            async with asyncio.timeout(LOAD_S_MAX):
                await self._loaded.wait()
        except TimeoutError:
            raise OutsideFailing(f"reports were not read within {LOAD_S_MAX:.0f} s; do the brokers answer?") from None

    async def _follow(self) -> None:
        """For as long as the process lives; brokers that do not answer are asked again, from the start."""
        while True:
            try:
                await self._read()
            except (KafkaError, OSError) as error:
                _log.warning("reports are not followed", error=type(error).__name__)
            await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        reader = new_reader(self._settings, "read_committed")
        await reader.start()
        try:
            name = topic_name(self._settings, topics.REPORTS.name)
            tps = [TopicPartition(name, at) for at in range(self._settings.partitions)]
            reader.assign(tps)
            ends: dict[TopicPartition, int] = await reader.end_offsets(tps)
            for tp, start in (await reader.beginning_offsets(tps)).items():
                reader.seek(tp, start)
            while True:
                self._keep(await reader.getmany(timeout_ms=WAIT_MS, max_records=RECORDS_MAX))
                if not self._loaded.is_set() and await _is_beyond(reader, ends):
                    self._loaded.set()
        except OffsetOutOfRangeError as error:
            _log.warning("reports are read anew", error=type(error).__name__)
        finally:
            await reader.stop()

    def _keep(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        for record in (record for records in fetched.values() for record in records):
            if record.value:
                self._put(record.key, *read_told(record.key, record.value))
            else:
                bucket = read_counts_key(record.key[2:])
                self._counts.get((bucket.unit, bucket.campaign), {}).pop(record.key, None)

    def _put(self, key: bytes, name: Bucket | str, row: Counts | About) -> None:
        if isinstance(name, Bucket) and isinstance(row, Counts):
            self._counts.setdefault((name.unit, name.campaign), {})[key] = name, row
        elif isinstance(name, str) and isinstance(row, About):
            self._abouts[key] = name, row


async def _is_beyond(reader: Any, ends: dict[TopicPartition, int]) -> bool:  # aiokafka has no types
    return all([await reader.position(tp) >= end for tp, end in ends.items()])
