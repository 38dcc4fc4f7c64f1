"""A disk that keeps batches in their order, and a stand-in for `tables.store.Store` upon it.

What was written survives a kill; what was not synced may be lost in a power cut, always the newest first, as
it is with RocksDB's write-ahead log.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from streams.errors import BadState
from tables.store import FAMILIES, Batch, Store
from tests.simulation.loop import Killed, Process, VirtualLoop

Op = tuple[str, str, bytes, bytes]
"""put, delete or range; the family; the key or the start of a range; the value or the end of a range."""


class MemoryBatch(Batch):
    """Writes that belong together, as a list."""

    def __init__(self, *, recording: bool) -> None:
        self.ops: list[Op] = []
        self.writes = []
        self._recording = recording

    def put(self, family: str, key: bytes, value: bytes) -> None:
        self.put_local(family, key, value)
        if self._recording:
            self.writes.append((family, key, value))

    def put_local(self, family: str, key: bytes, value: bytes) -> None:
        self.ops.append(("put", family, bytes(key), bytes(value)))

    def delete(self, family: str, key: bytes) -> None:
        self.ops.append(("delete", family, bytes(key), b""))
        if self._recording:
            self.writes.append((family, key, None))

    def delete_range(self, family: str, start: bytes, end: bytes) -> None:
        if self._recording:
            raise BadState(f"{family}: a range cannot be deleted in a batch that a changelog repeats")
        self.ops.append(("range", family, start, end))


class _Family:
    """Keys in order, and their values."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.values:
            insort(self.keys, key)
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        return self.keys[bisect_left(self.keys, start) : bisect_left(self.keys, end)]


class Disk:
    """What a machine keeps: every batch ever written, and the families that they make."""

    def __init__(self) -> None:
        self.batches: list[list[Op]] = []
        self.synced = 0
        self.families = {name: _Family() for name in FAMILIES}
        self._written: dict[tuple[str, bytes], int] = {}

    def keep(self, ops: list[Op]) -> None:
        """Write a batch whole."""
        self.batches.append(ops)
        self._apply(ops)
        self._written.update(dict.fromkeys((op[1:3] for op in ops if op[0] == "put"), len(self.batches)))

    def written_at(self, family: str, key: bytes) -> int:
        """The number of the batch that wrote a key last; compare it with `synced`."""
        return self._written.get((family, key), 0)

    def _apply(self, ops: list[Op]) -> None:
        for kind, name, key, value in ops:
            family = self.families[name]
            if kind == "put":
                family.put(key, value)
            elif kind == "delete":
                family.delete(key)
            else:
                for each in family.between(key, value):
                    family.delete(each)

    def cut_power(self, dice: random.Random) -> int:
        """Lose some of the newest batches that were not synced; returns how many."""
        kept = dice.randint(self.synced, len(self.batches))
        lost = len(self.batches) - kept
        if lost:
            del self.batches[kept:]
            self.families = {name: _Family() for name in FAMILIES}
            for ops in self.batches:
                self._apply(ops)
        self.synced = len(self.batches)
        return lost


class MemoryStore(Store):
    """`tables.store.Store` for one life of a process; what it writes outlives it on the disk."""

    def __init__(self, disk: Disk, process: Process | None, loop: VirtualLoop | None) -> None:
        self.disk = disk
        self._process = process
        self._loop = loop

    def batch(self, *, recording: bool = False) -> MemoryBatch:
        return MemoryBatch(recording=recording)

    def write(self, batch: Batch) -> None:
        """A kill may come just before or just after; never in between."""
        assert isinstance(batch, MemoryBatch)
        process = self._process
        if process is not None:
            if not process.alive:
                raise Killed("a write after death")
            process.step("before write")
        self.disk.keep(batch.ops)
        if self._loop is not None:
            self._loop.trace("write", len(self.disk.batches), _digest(batch.ops))
        if process is not None:
            process.step("after write")

    def get(self, family: str, key: bytes) -> bytes | None:
        return self.disk.families[family].values.get(key)

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        values = self.disk.families[family].values
        return [values.get(key) for key in keys]

    def scan(
        self, family: str, start: bytes, end: bytes, limit: int | None = None, *, fill_cache: bool = True
    ) -> Iterator[tuple[bytes, bytes]]:
        found = self.disk.families[family]
        keys = found.between(start, end)
        rows = [(key, found.values[key]) for key in (keys if limit is None else keys[:limit])]
        yield from rows

    def last(self, family: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        found = self.disk.families[family]
        at = bisect_left(found.keys, end) - 1
        if at < 0 or found.keys[at] < start:
            return None
        return found.keys[at], found.values[found.keys[at]]

    def sync(self) -> None:
        if self._process is not None:
            if not self._process.alive:
                raise Killed("a sync after death")
            self._process.step("before sync")
        self.disk.synced = len(self.disk.batches)
        if self._loop is not None:
            self._loop.trace("sync", self.disk.synced)

    def size_bytes(self) -> int:
        return sum(len(key) + len(value) for each in self.disk.families.values() for key, value in each.values.items())

    def close(self) -> None:
        return


def _digest(ops: list[Op]) -> str:
    found = blake2b(digest_size=8)
    for op in ops:
        for part in op:
            found.update(part if isinstance(part, bytes) else part.encode())
    return found.hexdigest()
