"""Reports: counts what becomes of campaigns, from the currents topic; counters and position commit together."""

import asyncio
from contextlib import suppress
from time import perf_counter
from typing import Final, cast

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from config import metrics
from streams import topics
from streams.errors import Revoked
from streams.exports import event_type_of
from streams.records import Output
from streams.reports import HOUR_S, fold, is_counted
from tables.reports import FAMILY, Progress, ReportRows, ReportsTable, read_progress, stage_progress

NAME: Final = "reports"
LOOK_S: Final = 1.0
ROWS_MAX: Final = 1_000
"""A slice that changes more rows is committed in parts: a batch is written in one piece, on the loop."""

SKIPPED_MAX: Final = 10_000
"""Records that say nothing to reports, and are read again after a crash rather than committed one by one."""

SWEEP_ROWS: Final = 1_000
_WRITE_S: Final = 3e-6  # what one row adds to the time of a commit
NOTHING: Final = cast("bytes", None)
"""The value that has a compacted topic forget a key."""

_TOLD: Final = b"reports-told\0"


class _Partition:
    """One open partition."""

    def __init__(self, table: ReportsTable, progress: Progress) -> None:
        self.table = table
        self.progress = progress
        self.committed = progress.next_offset
        self.lock = asyncio.Lock()
        self.swept_hour = -1
        self.cursor = b""


class Reports:
    """The counters of the open partitions. On Kafka changed ones are told to all, in the same transaction."""

    name = NAME
    reads = (topics.CURRENTS,)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._tells = engine.settings.on_kafka
        self._partitions: dict[int, _Partition] = {}

    async def open(self, partition: int) -> None:
        """Continue where the counters are; new ones begin at the oldest record that is left."""
        progress = read_progress(self._engine.store, partition)
        if not progress.next_offset:
            place = (topics.CURRENTS.name, partition)
            progress.next_offset = (await self._engine.transport.starts([place]))[place]
        self._partitions[partition] = _Partition(ReportsTable(self._engine.store, partition), progress)
        if self._tells:
            await self._tell_all(partition)

    async def _tell_all(self, partition: int) -> None:
        """Counters that came some other way, as from a folder that was moved, are told once to each such topic."""
        key = _TOLD + partition.to_bytes(2, "big")
        topic_id = self._engine.transport.topic_id(topics.REPORTS.name).encode()
        if self._engine.store.get("meta", key) == topic_id:
            return
        outputs = self._told(partition, list(ReportRows(self._engine.store).told(partition)))
        for start in range(0, len(outputs), ROWS_MAX):
            await self._engine.transport.commit(
                partition, self._engine.transport.batch(), outputs[start : start + ROWS_MAX]
            )
        batch = self._engine.transport.batch()
        batch.put("meta", key, topic_id)
        await self._engine.transport.commit(partition, batch, [])

    async def close(self, partition: int) -> None:
        """Forget a partition."""
        async with self._partitions[partition].lock:
            del self._partitions[partition]

    def position(self, topic: str, partition: int) -> int:
        """The first record that no committed counter knows."""
        return self._partitions[partition].committed

    async def rest(self) -> None:
        """Nothing is under way beside the slices, but for a sweep, which changes nothing that is asked for."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Records that say nothing to reports, and holes behind them."""
        held = self._partitions.get(partition)
        if held is None:
            return
        async with held.lock:
            held.progress.next_offset = max(held.progress.next_offset, finished)
            if held.progress.next_offset > held.committed:
                await self._commit(partition, held)

    async def handle(self, piece: Slice) -> None:
        """Count a slice and commit it, in the background."""
        began, pace = perf_counter(), self._engine.pace
        held = self._partitions[piece.partition]
        async with held.lock:
            for record in piece.records:
                if pace.background_spent:
                    await pace.rest(background=True)
                if record.offset < held.progress.next_offset:
                    continue
                event_type = event_type_of(record.headers, record.value)
                held.progress.next_offset = record.offset + 1
                if is_counted(event_type):
                    held.progress.clock_s = fold(held.table, held.progress.clock_s, event_type, record.value)
                    if held.table.changed >= ROWS_MAX:
                        await self._commit(piece.partition, held)
            held.progress.next_offset = max(held.progress.next_offset, piece.next_offset)
            if held.table.changed or held.progress.next_offset - held.committed >= SKIPPED_MAX:
                await self._commit(piece.partition, held)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        metrics.SLICE_SECONDS.labels(NAME).observe(perf_counter() - began)
        self._engine.slices.finish(piece)

    async def _commit(self, partition: int, held: _Partition) -> None:
        """Counters, what is remembered, and the position: whole or not at all."""
        await self._engine.pace.breathe(held.table.changed * _WRITE_S)
        batch = self._engine.transport.batch()
        told = held.table.stage(batch)
        stage_progress(batch, partition, held.progress)
        await self._engine.transport.commit(partition, batch, self._told(partition, told) if self._tells else [])
        held.committed = held.progress.next_offset

    def _told(self, partition: int, rows: list[tuple[bytes, bytes]]) -> list[Output]:
        return [Output(topics.REPORTS.name, partition, key, value) for key, value in rows]

    async def run(self) -> None:
        """Drop what the fold takes for forgotten, once in each hour of the records' own time."""
        while True:
            await asyncio.sleep(LOOK_S)
            for partition in sorted(self._partitions):
                with suppress(Revoked):
                    await self._sweep(partition)

    async def _sweep(self, partition: int) -> None:
        held = self._partitions.get(partition)
        if held is None:
            return
        hour = held.progress.clock_s // HOUR_S
        if hour <= held.swept_hour:
            return
        async with held.lock:
            if partition not in self._partitions:
                return
            await self._engine.pace.rest()
            swept = held.table.old(held.progress.clock_s, held.cursor, SWEEP_ROWS)
            if swept.keys:
                batch = self._engine.transport.batch()
                for key in swept.keys:
                    batch.delete(FAMILY, key)
                gone = [Output(topics.REPORTS.name, partition, key, NOTHING) for key in swept.told]
                await self._engine.transport.commit(partition, batch, gone if self._tells else [])
            held.cursor = swept.cursor or b""
            if swept.cursor is None:
                held.swept_hour = hour
