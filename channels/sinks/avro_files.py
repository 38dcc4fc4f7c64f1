"""Export files in Avro, in a folder: each is there whole, once, under a name made of its first offset."""

import asyncio
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
from fastavro import parse_schema, reader
from fastavro.schema import SchemaParseException
from fastavro.write import Writer

from streams.codec import to_json
from streams.effects import CurrentsRecord
from streams.errors import BadState, OutsideFailing
from streams.exports import SCHEMAS, object_name, row

BLOCK_ROWS: Final = 200
"""Rows of one Avro block: what is encoded, in about 2 ms, before the event loop has its turn."""

_ASIDE: Final = ".tmp"
# What fastavro makes of a header that is none, or none of ours; msgspec's errors are ValueErrors.
_FOREIGN: Final = (ValueError, LookupError, TypeError, RecursionError, SchemaParseException)
_BLOCK_BYTES_NEVER: Final = 2**40  # only our own count of rows ends a block
_PARSED: Final = {event_type: parse_schema(schema) for event_type, schema in SCHEMAS.items()}


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

    async def write(self, records: Sequence[tuple[int, CurrentsRecord]], partition: int) -> Written:
        """Publish one file of records, given with their offsets; on disk for good when this returns.

        All are of one event type, at least one, in the order of their offsets. Repeating a call whose
        outcome is unknown is safe. If a file of that name is there already, nothing is written: the
        result names its last offset, at or before or behind which the caller goes on.

        Encodes on the event loop, `BLOCK_ROWS` at a time; compresses and touches the disk in threads.

        Raises:
            OutsideFailing: the disk refuses for now; nothing is published, or all is and a repeat says so.
            BadState: the records cannot be one file, or the file of that name is not of these records.
        """
        event_type = _check(records, partition)
        offset, first = records[0]
        digest = blake2b(to_json(first), digest_size=16).hexdigest()
        name = object_name(event_type, first.time_ms, partition, offset, self._app)
        marks = _Marks(offset, records[-1][0], len(records), digest)
        found = await asyncio.to_thread(self._existing, self._root / name, marks)
        if found is not None:
            return found
        content = await _encode(records, event_type, name, marks)
        return await asyncio.to_thread(self._publish, content, self._root / name, marks)

    def files(self) -> Iterator[Path]:
        """The finished files, in the order of their names."""
        yield from sorted(self._root.glob("event_type=*/date=*/*.avro"))

    def _publish(self, content: bytes, path: Path, marks: _Marks) -> Written:
        aside = self._aside / f"{secrets.token_hex(16)}.avro"
        try:
            with aside.open("xb") as file:
                # Held, it tells others that this is no left-over; one that clears just before costs a repeat.
                fcntl.flock(file, fcntl.LOCK_EX)
                file.write(content)
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


def _check(records: Sequence[tuple[int, CurrentsRecord]], partition: int) -> str:
    """The one event type of the records.

    Raises:
        BadState: there are no records, or several types, or the offsets do not rise.
    """
    types = {record.event_type for _, record in records}
    if len(types) != 1:
        raise BadState(f"an export file of partition {partition} needs one event type, not {sorted(types)}")
    if any(one >= another for (one, _), (another, _) in pairwise(records)):
        raise BadState(f"offsets do not rise in an export file of partition {partition}")
    return types.pop()


async def _encode(records: Sequence[tuple[int, CurrentsRecord]], event_type: str, name: str, marks: _Marks) -> bytes:
    """The whole file; the same records give the same bytes."""
    content = BytesIO()
    writer = Writer(
        content,
        _PARSED[event_type],
        codec="deflate",
        sync_interval=_BLOCK_BYTES_NEVER,
        metadata={key: str(value) for key, value in msgspec.to_builtins(marks).items()},
        sync_marker=blake2b(name.encode(), digest_size=16).digest(),
    )
    for start in range(0, len(records), BLOCK_ROWS):
        for offset, record in records[start : start + BLOCK_ROWS]:
            try:
                writer.write(row(record.fields, record.time_ms))
            except (TypeError, ValueError, OverflowError) as error:
                raise BadState(f"offset {offset} does not fit the schema of {event_type}: {error}") from error
        await asyncio.to_thread(writer.dump)
    return content.getvalue()


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
