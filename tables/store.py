"""One RocksDB for a process: column families by name, atomic batches, bounded memory."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    ColumnFamily,
    DBCompressionType,
    IngestExternalFileOptions,
    Options,
    Rdict,
    ReadOptions,
    SstFileWriter,
    WriteBatch,
    WriteBufferManager,
)

from streams.errors import BadState, OutsideFailing

FAMILIES: Final = ("log", "users", "due", "dispatches", "meta", "reports")
DERIVED: Final = ("log", "due")
CACHE_BYTES: Final = 64 * 1024 * 1024
WRITE_BUFFERS_BYTES: Final = 48 * 1024 * 1024
WRITE_BUFFER_BYTES: Final = 12 * 1024 * 1024
WAL_BYTES_MAX: Final = 128 * 1024 * 1024
OPEN_FILES_MAX: Final = 512
BLOOM_BITS: Final = 10
BYTES_PER_SYNC: Final = 512 * 1024
"""The disk is given what is written in portions of this size: a sync that a send waits for finds little left to do."""

METADATA_BLOCK_BYTES: Final = 4 * 1024
"""Of a file's filter and index, which are kept in pieces. A filter in one piece grows with its file (1.2 MB for a
million users), fits in no shard of the block cache, and is then read whole from the disk for every get."""


class Store:
    """The database of a data folder. Every method but `sync` holds the GIL for microseconds only."""

    def __init__(self, path: Path, memory: float = 1.0) -> None:
        """Open or create the database, with so many times the default memory.

        Raises:
            OutsideFailing: another process holds it, or the disk refuses.
        """
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        cache = Cache(int(CACHE_BYTES * memory))
        buffers_bytes = int(WRITE_BUFFERS_BYTES * memory)
        manager = WriteBufferManager.new_write_buffer_manager_with_cache(buffers_bytes, False, cache)
        options = _options(cache, memory)
        options.set_write_buffer_manager(manager)
        families = {name: _options(cache, memory) for name in FAMILIES}
        try:
            self._db = Rdict(str(path), options, families)
        except Exception as error:
            raise OutsideFailing(
                f"{path}: RocksDB does not open ({error}); is the disk full, or another process using it?"
            ) from error
        self._families = {name: self._db.get_column_family(name) for name in FAMILIES}
        self._handles = {name: self._db.get_column_family_handle(name) for name in FAMILIES}
        self._open = True
        self._loads = path.with_name(f"{path.name}-loading")
        self._load_numbers = count()
        shutil.rmtree(self._loads, ignore_errors=True)  # of a process that was killed

    def batch(self, *, recording: bool = False) -> "Batch":
        """A new, empty batch; a recording one remembers its writes, so that a changelog can repeat them."""
        return Batch(self._handles, recording=recording)

    def write(self, batch: "Batch") -> None:
        """Write a batch whole or not at all; it survives kill -9, but power loss only after `sync`.

        Raises:
            OutsideFailing: the disk refuses. Nobody may write again: what RocksDB keeps of it is decided at
                the next start, where the batch is whole or not there.
        """
        try:
            self._db.write(batch.raw)
        except Exception as error:
            raise OutsideFailing(f"{self._path}: {_refused(error)}") from error

    def ingest(self, family: str, pieces: Iterable[tuple[Sequence[bytes], Sequence[bytes | None]]]) -> None:
        """Write many rows of one family as a file of RocksDB's own, past its log and buffers; for a thread.

        Args:
            family: where they belong.
            pieces: keys, ascending throughout, and their values, or None to delete one. What it does to tell
                them may read the store. One key at least.

        On disk when it returns, where power loss leaves it whole or not there. Raises OutsideFailing like `write`.
        """
        self._loads.mkdir(exist_ok=True)
        path = self._loads / f"{next(self._load_numbers)}.sst"
        options = _options(Cache(0))
        options.set_compression_type(DBCompressionType.none())  # RocksDB compresses them when it merges them
        writer = SstFileWriter(options)
        with self._refusals():
            writer.open(str(path))
        for keys, values in pieces:
            with self._refusals():
                _append(writer, keys, values)
        with self._refusals():
            writer.finish()
            moving = IngestExternalFileOptions()
            moving.set_move_files(True)
            self._families[family].ingest_external_file([str(path)], moving)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise OutsideFailing(f"{self._path}: {_refused(error)}") from error

    def get(self, family: str, key: bytes) -> bytes | None:
        """The value of a key."""
        value: bytes | None = self._families[family].get(key)
        return value

    def get_many(self, family: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values of several keys, in order; about 2 µs each."""
        if not keys:
            return []
        values: list[bytes | None] | None = self._families[family].get(list(keys))
        if values is None or len(values) != len(keys):
            raise BadState(f"{family}: asked for {len(keys)} keys and got {values and len(values)}")
        return values

    def scan(
        self, family: str, start: bytes, end: bytes, limit: int | None = None, *, fill_cache: bool = True
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values in [start, end), ascending, at most `limit` of them.

        Do not write while the iterator is open beyond a few thousand rows: it pins old files. Without
        `fill_cache` what is read takes no room of what is asked for more often.
        """
        bounds = ReadOptions()
        bounds.set_iterate_upper_bound(end)
        bounds.fill_cache(fill_cache)  # type: ignore[call-arg]  # its stub forgets the argument
        left = limit
        for key, value in self._families[family].items(from_key=start, read_opt=bounds):
            if left is not None:
                if left == 0:
                    return
                left -= 1
            yield bytes(key), value  # type: ignore[arg-type]  # raw mode: keys are bytes

    def last(self, family: str, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The greatest key in [start, end) and its value."""
        cursor = self._families[family].iter()
        cursor.seek_for_prev(end)
        if cursor.valid() and cursor.key() == end:
            cursor.prev()
        if cursor.valid() and cursor.key() >= start:
            return cursor.key(), cursor.value()
        return None

    def sync(self) -> None:
        """Make every write so far survive power loss; blocks for one fsync, so call it in a thread.

        Raises:
            OutsideFailing: the disk refuses.
        """
        try:
            self._db.flush_wal(sync=True)
        except Exception as error:
            raise OutsideFailing(f"{self._path}: {_refused(error)}") from error

    def settle(self) -> None:
        """Write what is in memory into files, so that a checkpoint has little to do; call it in a thread.

        Raises:
            OutsideFailing: the disk refuses.
        """
        try:
            for family in self._families.values():
                family.flush()
        except Exception as error:
            raise OutsideFailing(f"{self._path}: {_refused(error)}") from error

    def checkpoint(self, path: Path) -> None:
        """The database as of this moment in a new folder, by hard links where it is on the same filesystem.

        Holds the GIL while it writes what is in memory, which takes milliseconds just after `settle`.

        Raises:
            OutsideFailing: the disk refuses, or the folder exists.
        """
        try:
            Checkpoint(self._db).create_checkpoint(str(path))
        except Exception as error:
            raise OutsideFailing(f"{path}: RocksDB makes no checkpoint there ({error})") from error

    def size_bytes(self) -> int:
        """Bytes of live data in all families, as RocksDB estimates them."""
        names = ("rocksdb.estimate-live-data-size", "rocksdb.cur-size-all-mem-tables")
        return sum(family.property_int_value(name) or 0 for family in self._families.values() for name in names)

    def close(self) -> None:
        """Close for good; iterators must be gone."""
        if self._open:
            self._open = False
            self._handles.clear()
            for family in self._families.values():
                family.close()
            self._families.clear()
            self._db.close()


Change = tuple[str, bytes, bytes | None]
"""A family, a key, and its new value, or None for a deletion."""


class Batch:
    """Writes that belong together."""

    def __init__(self, handles: dict[str, ColumnFamily], *, recording: bool) -> None:
        """Made by `Store.batch`."""
        self.raw = WriteBatch(raw_mode=True)
        self.writes: list[Change] = []
        self._handles = handles
        self._recording = recording

    @property
    def changes(self) -> list[Change]:
        """The writes that make up the state; what is derived from it is left out."""
        return [write for write in self.writes if write[0] not in DERIVED]

    def put(self, family: str, key: bytes, value: bytes) -> None:
        """Set a key."""
        self.raw.put(key, value, self._handles[family])
        if self._recording:
            self.writes.append((family, key, value))

    def put_local(self, family: str, key: bytes, value: bytes) -> None:
        """Set a key that concerns this machine alone."""
        self.raw.put(key, value, self._handles[family])

    def delete(self, family: str, key: bytes) -> None:
        """Remove a key."""
        self.raw.delete(key, self._handles[family])
        if self._recording:
            self.writes.append((family, key, None))

    def delete_range(self, family: str, start: bytes, end: bytes) -> None:
        """Remove the keys in [start, end); not in a recording batch, since no changelog can say that."""
        if self._recording:
            raise BadState(f"{family}: a range cannot be deleted in a batch that a changelog repeats")
        self.raw.delete_range(start, end, self._handles[family])

    def add(self, other: "Batch") -> None:
        """Take over the writes of another recording batch."""
        for family, key, value in other.writes:
            if value is None:
                self.delete(family, key)
            else:
                self.put(family, key, value)


def _append(writer: SstFileWriter, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
    if None not in values:
        for key, value in zip(keys, values, strict=True):
            writer[key] = value
        return
    for key, value in zip(keys, values, strict=True):
        if value is None:
            del writer[key]
        else:
            writer[key] = value


def _refused(error: Exception) -> str:
    """What a refused write means for whoever reads the last words of a process."""
    return f"RocksDB cannot write ({error}); free the disk, then start again: what was acknowledged is kept"


def _options(cache: Cache, memory: float = 1.0) -> Options:
    """Bounded memory and files, bloom filters, snappy; one fresh object per family (rocksdict empties it)."""
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(BLOOM_BITS, False)
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(METADATA_BLOCK_BYTES)
    table.set_pin_top_level_index_and_filter(True)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(int(WRITE_BUFFER_BYTES * memory))
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_max_total_wal_size(WAL_BYTES_MAX)
    options.set_bytes_per_sync(BYTES_PER_SYNC)
    options.set_wal_bytes_per_sync(BYTES_PER_SYNC)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_max_background_jobs(2)
    return options
