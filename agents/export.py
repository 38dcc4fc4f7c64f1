"""Export: currents records into Avro files, one per type and partition, each record in exactly one file."""

import asyncio
from bisect import bisect_right
from contextlib import suppress
from functools import partial
from operator import itemgetter
from typing import Final

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from channels.sinks.avro_files import AvroFiles
from config import metrics
from streams import topics
from streams.errors import Revoked
from streams.exports import Batch, event_type_of
from streams.records import Record
from tables.cursors import Cursors, read_cursors, stage_cursors

NAME: Final = "export"
LOOK_S: Final = 1.0
BUFFER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of what waits in all partitions together; beyond it the largest file to be is written early."""

_VALUE_OVERHEAD_BYTES: Final = 150  # what Python adds to a value that waits


class _Pending:
    """The records of one file to be, as they lie in the log."""

    def __init__(self, batch: Batch, value: bytes) -> None:
        self.batch = batch
        self.values: list[tuple[int, bytes]] = [(batch.first_offset, value)]
        self.size_bytes = _size(value)

    def keep(self, record: Record) -> None:
        self.batch = self.batch.with_record(record.offset, len(record.value))
        self.values.append((record.offset, record.value))
        self.size_bytes += _size(record.value)

    def drop(self, upto_offset: int) -> None:
        """Forget the records that a file now holds."""
        self.values = self.values[bisect_right(self.values, upto_offset, key=itemgetter(0)) :]
        self.size_bytes = sum(_size(value) for _, value in self.values)


class _Partition:
    """What one open partition has read and not yet written."""

    def __init__(self, cursors: Cursors) -> None:
        self.cursors = cursors
        self.pending: dict[str, _Pending] = {}
        self.read_to = cursors.next_offset
        self.time_ms = 0

    @property
    def next_offset(self) -> int:
        """The first record that was read and lies in no file, or that comes next."""
        return min([self.read_to, *(each.values[0][0] for each in self.pending.values())])


class Export:
    """The partitions' files to be, and the cursors of those that are."""

    name = NAME
    reads = (topics.CURRENTS,)

    def __init__(self, engine: Engine, sink: AvroFiles | None) -> None:
        """Without a sink no partition may be opened: there is nothing to do."""
        self._engine = engine
        self._breathe = partial(engine.pace.breathe, background=True)
        self._sink = sink
        self._partitions: dict[int, _Partition] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    async def open(self, partition: int) -> None:
        """Continue at the first record that no file holds, or at the oldest that is left if files are new here."""
        self._locks.setdefault(partition, asyncio.Lock())
        cursors = read_cursors(self._engine.store, partition)
        if not (cursors.files or cursors.next_offset):
            place = (topics.CURRENTS.name, partition)
            cursors.next_offset = (await self._engine.transport.starts([place]))[place]
        self._partitions[partition] = _Partition(cursors)

    async def close(self, partition: int) -> None:
        """Finish the file that is being written, and drop what waits: the next owner reads it again."""
        async with self._locks[partition]:
            del self._partitions[partition]

    def position(self, topic: str, partition: int) -> int:
        """The first record that no file holds."""
        return self._partitions[partition].cursors.next_offset

    async def rest(self) -> None:
        """Nothing is under way beside the slices."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Holes behind the last record, up to the first that waits for its file."""
        async with self._locks[partition]:
            held = self._partitions.get(partition)
            if held is None:
                return
            held.read_to = max(held.read_to, finished)
            if held.next_offset > held.cursors.next_offset:
                await self._advance(partition, held)

    async def handle(self, piece: Slice) -> None:
        """Keep a slice's records, and write each file that is full; in the background, since nobody waits for them."""
        pace = self._engine.pace
        async with self._locks[piece.partition]:
            held = self._partitions.get(piece.partition)
            if held is None:
                raise Revoked(f"currents[{piece.partition}] was given up while a slice of it waited")
            for record in piece.records:
                if pace.background_spent:
                    await pace.rest(background=True)
                if record.offset >= held.read_to and self._take(piece.partition, held, record):
                    await self._write(piece.partition, event_type_of(record.headers, record.value))
            held.read_to = max(held.read_to, piece.next_offset)
        await self._shrink()
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        self._engine.slices.finish(piece)

    def _take(self, partition: int, held: _Partition, record: Record) -> bool:
        """Keep one record, unless a file holds it; returns whether its file is due by the record's own time."""
        event_type = event_type_of(record.headers, record.value)
        held.read_to, held.time_ms = record.offset + 1, record.append_ms
        if record.offset <= held.cursors.last.get(event_type, -1):
            return False
        pending = held.pending.get(event_type)
        if pending is None:
            batch = Batch.of(event_type, partition, record.offset, record.append_ms, len(record.value))
            pending = held.pending[event_type] = _Pending(batch, record.value)
        else:
            pending.keep(record)
        return pending.batch.is_due(record.append_ms)

    async def _shrink(self) -> None:
        """Write the largest files to be while too much waits; the lane that brought it waits for that."""
        while self.waiting_bytes > BUFFER_BYTES_MAX:
            metrics.LIMIT_HITS.labels("export_buffer_bytes").inc()
            sizes = {
                (partition, event_type): pending.size_bytes
                for partition, held in self._partitions.items()
                for event_type, pending in held.pending.items()
            }
            partition, event_type = max(sizes, key=lambda place: (sizes[place], place))
            async with self._locks[partition]:
                await self._write(partition, event_type)

    async def run(self) -> None:
        """Write what has waited five minutes."""
        while True:
            await asyncio.sleep(LOOK_S)
            for partition in sorted(self._partitions):
                with suppress(Revoked):
                    await self._write_due(partition)

    async def _write_due(self, partition: int) -> None:
        """By the clock where all is read; a partition that is behind lives at the time of what it reads.

        Else a worker that comes back after an hour would write a small file of each type every second.
        """
        async with self._locks[partition]:
            held = self._partitions.get(partition)
            if held is None:
                return
            is_behind = not self._engine.slices.is_caught_up((topics.CURRENTS.name, partition))
            now_ms = held.time_ms if is_behind else self._engine.clock.now_ms()
            for event_type in sorted(held.pending):
                if held.pending[event_type].batch.is_due(now_ms):
                    await self._write(partition, event_type)

    async def flush(self) -> None:
        """Write everything that waits."""
        for partition in sorted(self._partitions):
            async with self._locks[partition]:
                held = self._partitions.get(partition)
                for event_type in sorted(held.pending) if held else ():
                    await self._write(partition, event_type)

    async def _write(self, partition: int, event_type: str) -> None:
        """Write one file and commit its cursor; a file that a crash left without one is taken over.

        Such a file may hold fewer records than wait now; the rest becomes the next file. The caller holds
        the partition's lock.
        """
        assert self._sink is not None
        held = self._partitions.get(partition)
        pending = held.pending.get(event_type) if held else None
        while held is not None and pending is not None and pending.values:
            await self._engine.transport.sync()
            shift = held.cursors.shift
            values = [(offset + shift, value) for offset, value in pending.values] if shift else pending.values
            written = await self._sink.write(event_type, values, partition, self._breathe)
            last_offset = written.last_offset - shift
            pending.drop(last_offset)
            if not pending.values:
                del held.pending[event_type]
            held.cursors.last[event_type] = last_offset
            held.cursors.files += 1
            held.cursors.rows += written.rows
            await self._advance(partition, held)
            metrics.EXPORT_ROWS.labels("avro_files").inc(written.rows)
            metrics.EXPORT_FILES.labels("avro_files").inc()

    async def _advance(self, partition: int, held: _Partition) -> None:
        """Keep the cursors: a restart reads on at the first record that was read and lies in no file.

        A file taken over may end behind what was read so far; records of other types lie before its end.
        """
        held.cursors.next_offset = held.next_offset
        batch = self._engine.transport.batch()
        stage_cursors(batch, partition, held.cursors)
        await self._engine.transport.commit(partition, batch, [])

    @property
    def waiting(self) -> int:
        """Records that no file holds yet."""
        return sum(len(each.values) for held in self._partitions.values() for each in held.pending.values())

    @property
    def waiting_bytes(self) -> int:
        """The memory of these records."""
        return sum(each.size_bytes for held in self._partitions.values() for each in held.pending.values())


def _size(value: bytes) -> int:
    return len(value) + _VALUE_OVERHEAD_BYTES
