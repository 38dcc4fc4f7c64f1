"""Export: currents records into Avro files, one per type and partition, each record in exactly one file."""

import asyncio
from typing import Final

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from channels.sinks.avro_files import AvroFiles
from config import metrics
from streams import topics
from streams.exports import Batch, decode_currents
from tables.cursors import Cursors, read_cursors, stage_cursors

NAME: Final = "export"
LOOK_S: Final = 1.0
BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024


class _Pending:
    """The records of one file to be, as they lie in the log."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.values: list[tuple[int, bytes]] = []


class Export:
    """What waits to be written, and the cursors of what is."""

    name = NAME
    reads = (topics.CURRENTS,)

    def __init__(self, engine: Engine, sink: AvroFiles) -> None:
        self._engine = engine
        self._sink = sink
        self.cursors: dict[int, Cursors] = {}
        self._pending: dict[int, dict[str, _Pending]] = {}
        self._read_to: dict[int, int] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._buffered = 0

    async def open(self, partition: int) -> None:
        """Continue at the first record that no file holds."""
        cursors = self.cursors[partition] = read_cursors(self._engine.store, partition)
        self._pending[partition] = {}
        self._read_to[partition] = cursors.next_offset
        self._locks[partition] = asyncio.Lock()

    async def close(self, partition: int) -> None:
        """Drop what waits: whoever opens the partition next reads it again."""
        async with self._locks[partition]:
            for found in self._pending[partition].values():
                self._buffered -= sum(len(value) for _, value in found.values)
            for kept in (self.cursors, self._pending, self._read_to):
                kept.pop(partition)

    def position(self, topic: str, partition: int) -> int:
        """The first record that no file holds."""
        return self.cursors[partition].next_offset

    async def handle(self, piece: Slice) -> None:
        """Keep a slice's records, and write each file that is full."""
        async with self._locks[piece.partition]:
            for record in piece.records:
                event_type = decode_currents(record.value).event_type
                if record.offset <= self.cursors[piece.partition].last.get(event_type, -1):
                    continue
                self._keep(piece.partition, event_type, record.offset, record.append_ms, record.value)
                if self._pending[piece.partition][event_type].batch.is_due(record.append_ms):
                    await self._write(piece.partition, event_type)
            self._read_to[piece.partition] = piece.next_offset
        if self._buffered > BUFFER_BYTES_MAX:
            metrics.LIMIT_HITS.labels("export_buffer_bytes").inc()
            await self.flush()
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        self._engine.slices.finish(piece)

    def _keep(self, partition: int, event_type: str, offset: int, append_ms: int, value: bytes) -> None:
        found = self._pending[partition].get(event_type)
        if found is None:
            batch = Batch.of(event_type, partition, offset, append_ms, len(value))
            found = self._pending[partition][event_type] = _Pending(batch)
        else:
            found.batch = found.batch.with_record(offset, len(value))
        found.values.append((offset, value))
        self._buffered += len(value)

    async def run(self) -> None:
        """Write what has waited five minutes."""
        while True:
            await asyncio.sleep(LOOK_S)
            now_ms = self._engine.clock.now_ms()
            for partition in sorted(self._pending):
                async with self._locks[partition]:
                    for event_type, found in sorted(self._pending.get(partition, {}).items()):
                        if found.batch.is_due(now_ms):
                            await self._write(partition, event_type)

    async def flush(self) -> None:
        """Write everything that waits."""
        for partition in sorted(self._pending):
            async with self._locks[partition]:
                for event_type in sorted(self._pending.get(partition, {})):
                    await self._write(partition, event_type)

    async def _write(self, partition: int, event_type: str) -> None:
        """Write one file and commit its cursor; a file that a crash left without one is taken over.

        Such a file may hold fewer records than wait now; the rest stays and becomes the next file.
        """
        found = self._pending[partition].pop(event_type)
        while found.values:
            records = [(offset, decode_currents(value)) for offset, value in found.values]
            await self._engine.transport.sync()
            written = await self._sink.write(records, partition)
            done = [value for offset, value in found.values if offset <= written.last_offset]
            self._buffered -= sum(map(len, done))
            found.values = found.values[len(done) :]
            await self._advance(partition, event_type, written.last_offset, written.rows, found)
            metrics.EXPORT_ROWS.labels("avro_files").inc(written.rows)
            metrics.EXPORT_FILES.labels("avro_files").inc()

    async def _advance(self, partition: int, event_type: str, last: int, rows: int, rest: _Pending) -> None:
        cursors = self.cursors[partition]
        cursors.last[event_type] = last
        cursors.files += 1
        cursors.rows += rows
        waiting = [found.values[0][0] for found in self._pending[partition].values() if found.values]
        waiting += [rest.values[0][0]] if rest.values else []
        cursors.next_offset = min([last + 1, *waiting]) if waiting else max(last + 1, self._read_to[partition])
        batch = self._engine.transport.batch()
        stage_cursors(batch, partition, cursors)
        await self._engine.transport.commit(partition, batch, [])

    @property
    def waiting(self) -> int:
        """Records that no file holds yet."""
        return sum(len(found.values) for pending in self._pending.values() for found in pending.values())
