"""Export files in Avro, in a folder: each is there whole, once, under a name made of its first offset."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from fastavro import parse_schema, reader
from fastavro.schema import SchemaParseException
from fastavro.write import Writer

from channels.avro_rows import RowWriter
from streams.errors import BadState, OutsideFailing
from streams.exports import EVENT_TYPE, SCHEMAS, decode_row, object_name
from streams.times import SECOND_MS

BLOCK_ROWS: Final = 1_000
"""Rows of one Avro block, which is compressed in a thread."""

PIECE_ROWS: Final = 40
"""Rows that are decoded and encoded, in about half a millisecond, before the event loop has its turn."""

_ASIDE: Final = ".tmp"
# What fastavro makes of a header that is none, or none of ours; msgspec's errors are ValueErrors.
_FOREIGN: Final = (ValueError, LookupError, TypeError, RecursionError, SchemaParseException)
_PARSED: Final = {event_type: parse_schema(schema) for event_type, schema in SCHEMAS.items()}
_ROWS: Final = {event_type: RowWriter(schema) for event_type, schema in SCHEMAS.items()}

Values: TypeAlias = Sequence[tuple[int, bytes]]
Breathe: TypeAlias = Callable[[], Awaitable[None]]


async def _turn() -> None:
    """Let the loop turn once."""
    await asyncio.sleep(0)


class Written(msgspec.Struct, frozen=True):
    """A finished file: what it holds counts, even where the records offered to `write` were others.

    `existed` says that an earlier life had published it already.
    """

    path: Path
    rows: int
    last_offset: int
    existed: bool = False


class _Marks(msgspec.Struct, frozen=True, rename=lambda name: f"headrace.{name}"):
    """What a file's Avro metadata says of its content; `first_record` is the digest of the first record."""

    first_offset: int
    last_offset: int
    rows: int
    first_record: str


class AvroFiles:
    """A folder of export files, for any number of writers, of this process and others.

    Raises:
        OutsideFailing: the folder cannot be made or cleared of what a crash left.
    """

    def __init__(self, root: Path, app: str) -> None:
        self._root = root
        self._app = app
        self._aside = root / _ASIDE
        try:
            self._aside.mkdir(parents=True, exist_ok=True)
            _clear(self._aside)
        except OSError as error:
            raise OutsideFailing(f"cannot prepare the exports folder {root}: {error}") from error

    async def write(self, event_type: str, values: Values, partition: int, breathe: Breathe = _turn) -> Written:
        """Publish one file of records of one type; on disk for good when this returns.

        Repeating a call whose outcome is unknown is safe. If a file of that name is there already, nothing
        is written: the result names its last offset, at or before or behind which the caller goes on.

        Decodes and encodes on the event loop, `PIECE_ROWS` at a time; compresses and touches the disk in
        threads.

        Args:
            event_type: of all the records.
            values: offsets and values of the currents topic, at least one, in order. The caller may not
                change them before this returns.
            partition: where they lie.
            breathe: awaited between pieces, so that others have their turn.

        Raises:
            OutsideFailing: the disk refuses for now; nothing is published, or all is and a repeat says so.
            BadState: the records cannot be one file, or the file of that name is not of these records.
        """
        if not values or event_type not in _PARSED:
            raise BadState(f"{len(values)} records of type {event_type!r} make no export file")
        offset, first = values[0]
        digest = blake2b(first, digest_size=16).hexdigest()
        name = object_name(event_type, int(decode_row(first)["time"]) * SECOND_MS, partition, offset, self._app)
        marks = _Marks(offset, values[-1][0], len(values), digest)
        found = await asyncio.to_thread(self._existing, self._root / name, marks)
        if found is not None:
            return found
        content = await _encode(values, event_type, name, marks, breathe)
        return await asyncio.to_thread(self._publish, content, self._root / name, marks)

    def files(self) -> Iterator[Path]:
        """The finished files, in the order of their names."""
        yield from sorted(self._root.glob("event_type=*/date=*/*.avro"))

    def _publish(self, content: BytesIO, path: Path, marks: _Marks) -> Written:
        aside = self._aside / f"{secrets.token_hex(16)}.avro"
        try:
            with aside.open("xb") as file:
                # Held, it tells others that this is no left-over; one that clears just before costs a repeat.
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
                path.parent.mkdir(parents=True, exist_ok=True)
                is_ours = _link(aside, path)
                self._sync_folders(path)
                aside.unlink()
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise OutsideFailing(f"cannot write the export file {path}: {error}") from error
        if is_ours:
            return Written(path, marks.rows, marks.last_offset)
        found = self._existing(path, marks)
        if found is None:
            raise OutsideFailing(f"the export file {path} was there and is gone")
        return found

    def _existing(self, path: Path, ours: _Marks) -> Written | None:
        """The file of that name, if there is one, made as durable as one that we write."""
        try:
            with path.open("rb") as file:
                metadata = reader(file).metadata
            self._sync_folders(path)
            marks = msgspec.convert(metadata, _Marks, strict=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutsideFailing(f"cannot read the export file {path}: {error}") from error
        except _FOREIGN as error:
            raise BadState(f"{path} is no export file of ours ({error}); move it away") from error
        is_whole = 1 <= marks.rows <= marks.last_offset - marks.first_offset + 1
        if not is_whole or marks.first_offset != ours.first_offset:
            raise BadState(f"{path} contradicts itself: {marks}; move it away")
        if marks.first_record != ours.first_record:
            raise BadState(
                f"{path} begins with another record than offset {ours.first_offset} now holds: "
                "it is of another life of the log; move it away or export to another folder"
            )
        return Written(path, marks.rows, marks.last_offset, existed=True)

    def _sync_folders(self, path: Path) -> None:
        """Make the file's name durable, and those of its folders, which may be new."""
        for folder in (path.parent, path.parent.parent, self._root):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


async def _encode(values: Values, event_type: str, name: str, marks: _Marks, breathe: Breathe) -> BytesIO:
    """The whole file; the same records give the same bytes."""
    content = BytesIO()
    writer = Writer(
        content,
        _PARSED[event_type],
        codec="deflate",
        metadata={key: str(value) for key, value in msgspec.to_builtins(marks).items()},
        sync_marker=blake2b(name.encode(), digest_size=16).digest(),
    )
    before = -1
    block = _Block()
    for start in range(0, len(values), PIECE_ROWS):
        await breathe()
        before = _write_piece(block, values[start : start + PIECE_ROWS], event_type, before)
        if block.num_records >= BLOCK_ROWS or start + PIECE_ROWS >= len(values):
            await asyncio.to_thread(writer.write_block, block)
            block = _Block()
    return content


class _Block:
    """Rows of one block, by the names that fastavro's `write_block` reads."""

    def __init__(self) -> None:
        self.bytes_ = BytesIO()
        self.num_records = 0


def _write_piece(block: _Block, values: Values, event_type: str, before: int) -> int:
    """Encode a few records that lie behind an offset; returns the last one's."""
    write = _ROWS[event_type].write
    for offset, value in values:
        fields = decode_row(value)
        if offset <= before or fields[EVENT_TYPE] != event_type:
            raise BadState(
                f"offset {offset} after {before} and {fields[EVENT_TYPE]!r} do not belong into a file of {event_type}"
            )
        before = offset
        try:
            write(block.bytes_, fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise BadState(f"offset {offset} does not fit the schema of {event_type}: {error}") from error
    block.num_records += len(values)
    return before


def _link(aside: Path, path: Path) -> bool:
    """Give the file its final name; False where that name is taken."""
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return False
    return True


def _clear(folder: Path) -> None:
    """Remove what crashed writers left; a file that a living one holds stays."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink()
