"""The embedded log: topics and partitions in RocksDB, appended in batches as Kafka appends them."""

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from streams.codec import pack
from streams.errors import BadState
from streams.records import SLICE_BYTES_MAX, Headers, Output, Place, Record
from tables.store import Batch, Store

TAIL_BYTES_MAX: Final = 512 * 1024
READ_RECORDS_MAX: Final = 1_000
"""Of one slice: fewer than on Kafka, since a commit here costs little, and is one write that holds the loop."""

TRIM_CHUNKS_MAX: Final = 200
"""Chunks that are looked at, on the loop, in one call."""

_BATCH_OVERHEAD: Final = 64


class _Chunk(msgspec.Struct, array_like=True):
    """The value of a log key: the append time and the records [key, value, headers] that share it.

    `bytes_before` is the size of all values that the partition ever held before this one; 0 in chunks of a
    version that did not count.
    """

    append_ms: int
    rows: list[tuple[bytes | None, bytes, Headers | None]]
    bytes_before: int = 0


class _ChunkHead(msgspec.Struct, array_like=True):
    """All but the records."""

    append_ms: int
    rows: msgspec.Raw
    bytes_before: int = 0


_decoder: Final = msgspec.msgpack.Decoder(_Chunk)
_head_decoder: Final = msgspec.msgpack.Decoder(_ChunkHead)


class Log:
    """Appends become visible, to readers and to `end`, when the batch they were staged in is written."""

    def __init__(self, store: Store) -> None:
        """Continue the log that lies in the store."""
        self._store = store
        self._ends: dict[Place, int] = {}
        self._last_ms: dict[Place, int] = {}
        self._bytes: dict[Place, int] = {}
        self._tails: defaultdict[Place, _Tail] = defaultdict(_Tail)
        self._staged: dict[Place, int] = {}
        self._changed = asyncio.Event()

    def stage(self, batch: Batch, outputs: Sequence[Output], now_ms: int) -> dict[Place, int]:
        """Add outputs to a batch, in order; `publish` must follow once it is written.

        All that is staged for a partition at once shares one append time, which never falls.

        Returns:
            The first offset given in each partition.
        """
        groups: defaultdict[Place, list[Output]] = defaultdict(list)
        for output in outputs:
            groups[output.topic, output.partition].append(output)
        firsts: dict[Place, int] = {}
        for place, group in groups.items():
            first = self._staged.get(place, self.end(*place))
            append_ms = max(now_ms, self._last_ms[place])
            rows = [(output.key, output.value, output.headers or None) for output in group]
            value = pack(_Chunk(append_ms, rows, self._bytes[place]))
            self._bytes[place] += len(value)
            batch.put("log", _key(place, first), value)
            self._tails[place].add(first, append_ms, group)
            self._last_ms[place] = append_ms
            self._staged[place] = first + len(group)
            firsts[place] = first
        return firsts

    def publish(self) -> None:
        """The batch is written: let readers see what was staged."""
        self._ends.update(self._staged)
        self._staged.clear()
        self._changed.set()

    def listen(self) -> None:
        """What is appended from here on ends `wait`."""
        self._changed.clear()

    async def wait(self, timeout_s: float) -> None:
        """Wait until something has been appended since `listen`, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def wake(self) -> None:
        """Let a waiting reader look again."""
        self._changed.set()

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        place = (topic, partition)
        end = self._ends.get(place)
        if end is None:
            found = self._store.last("log", _key(place, 0), _after(place))
            chunk = _decoder.decode(found[1]) if found else None
            end = _offset(found[0]) + len(chunk.rows) if found and chunk else 0
            self._last_ms[place] = chunk.append_ms if chunk else 0
            self._bytes[place] = chunk.bytes_before + len(found[1]) if found and chunk else 0
            self._ends[place] = end
        return end

    def start(self, topic: str, partition: int) -> int:
        """The lowest offset still kept; the end if there is none."""
        place = (topic, partition)
        for key, _ in self._store.scan("log", _key(place, 0), _after(place), 1):
            return _offset(key)
        return self.end(topic, partition)

    def size_bytes(self, topic: str, partition: int) -> int:
        """Bytes of what is kept, as appended: RocksDB's own compression is not in it."""
        place = (topic, partition)
        self.end(topic, partition)
        for _, value in self._store.scan("log", _key(place, 0), _after(place), 1):
            return self._bytes[place] - _head_decoder.decode(value).bytes_before
        return 0

    def read(
        self,
        topic: str,
        partition: int,
        offset: int,
        records_max: int = READ_RECORDS_MAX,
        bytes_max: int = SLICE_BYTES_MAX,
    ) -> list[Record]:
        """Records from an offset on, within bounds, but at least one if there is one.

        Raises:
            BadState: the offset lies below what retention has left.
        """
        place = (topic, partition)
        end = self.end(topic, partition)
        if offset >= end:
            return []
        tail = self._tails.get(place)
        found = tail.read(offset, end, records_max, bytes_max) if tail else None
        return found or self._read_store(place, offset, records_max, bytes_max)

    def _read_store(self, place: Place, offset: int, records_max: int, bytes_max: int) -> list[Record]:
        at = self._store.last("log", _key(place, 0), _key(place, offset + 1))
        if at is None:
            raise BadState(
                f"{place[0]}[{place[1]}]: offset {offset} is below the log's start {self.start(*place)}; "
                "restore the folder from a backup, or start with a new one"
            )
        records: list[Record] = []
        size = 0
        for key, value in self._store.scan("log", at[0], _after(place)):
            chunk = _decoder.decode(value)
            first = _offset(key)
            for index in range(max(0, offset - first), len(chunk.rows)):
                row_key, row_value, headers = chunk.rows[index]
                size += len(row_value) + _BATCH_OVERHEAD
                if records and (len(records) >= records_max or size > bytes_max):
                    return records
                records.append(Record(first + index, chunk.append_ms, row_key, row_value, headers or ()))
        return records

    def trim(
        self, batch: Batch, topic: str, partition: int, below_offset: int, before_ms: int, bytes_max: int | None = None
    ) -> int:
        """Drop whole chunks below an offset that are older than a time, or that newer ones push out of the bytes.

        The last chunk stays.

        Returns:
            The number of chunks dropped, at most `TRIM_CHUNKS_MAX`; at that number there may be more.
        """
        place = (topic, partition)
        self.end(topic, partition)
        low_bytes = -1 if bytes_max is None else self._bytes[place] - bytes_max
        dropped = 0
        previous: bytes | None = None
        upto: bytes | None = None
        for key, value in self._store.scan("log", _key(place, 0), _key(place, below_offset)):
            if previous is not None:
                upto = key
                dropped += 1
            head = _head_decoder.decode(value)
            if dropped == TRIM_CHUNKS_MAX or (head.append_ms >= before_ms and head.bytes_before >= low_bytes):
                break
            previous = key
        if upto is not None:
            batch.delete_range("log", _key(place, 0), upto)
        return dropped if upto is not None else 0


class _Stretch(msgspec.Struct, frozen=True):
    """What one batch appended to a partition, and its size."""

    first: int
    append_ms: int
    outputs: list[Output]
    size: int


_NO_STRETCH: Final = _Stretch(0, 0, [], 0)


class _Tail:
    """The newest records of a partition, kept so that readers who are close need no read and no decode."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._stretches: list[_Stretch] = []
        self._gone = 0
        self._size = 0

    def add(self, first: int, append_ms: int, outputs: list[Output]) -> None:
        """Keep what was appended at an offset; records are made of it when somebody reads."""
        size = sum([len(output.value) for output in outputs]) + _BATCH_OVERHEAD * len(outputs)
        self._firsts.append(first)
        self._stretches.append(_Stretch(first, append_ms, outputs, size))
        self._size += size
        while self._size > TAIL_BYTES_MAX and self._gone < len(self._stretches):
            self._size -= self._stretches[self._gone].size
            self._stretches[self._gone] = _NO_STRETCH
            self._gone += 1
        if self._gone * 2 > len(self._stretches):  # so that what is removed costs as much as what was added
            del self._stretches[: self._gone], self._firsts[: self._gone]
            self._gone = 0

    def read(self, offset: int, end: int, records_max: int, bytes_max: int) -> list[Record] | None:
        """Records from the offset on, below `end`; None when the offset is not in the tail."""
        if self._gone == len(self._firsts) or offset < self._firsts[self._gone]:
            return None
        records: list[Record] = []
        size = 0
        for index in range(bisect_right(self._firsts, offset, self._gone) - 1, len(self._stretches)):
            stretch = self._stretches[index]
            if stretch.first >= end:
                break
            for output in stretch.outputs[max(0, offset - stretch.first) :]:
                size += len(output.value) + _BATCH_OVERHEAD
                if records and (len(records) >= records_max or size > bytes_max):
                    return records
                at = offset + len(records)
                records.append(Record(at, stretch.append_ms, output.key, output.value, output.headers))
        return records


def _prefix(place: Place) -> bytes:
    return place[0].encode() + b"\0" + place[1].to_bytes(2, "big")


def _key(place: Place, offset: int) -> bytes:
    return _prefix(place) + offset.to_bytes(8, "big")


def _after(place: Place) -> bytes:
    return _prefix(place) + b"\xff" * 9


def _offset(key: bytes) -> int:
    return int.from_bytes(key[-8:], "big")
