"""How far exports have come: a cursor per event type and partition."""

from typing import Final

import msgspec

from streams.codec import pack
from tables.store import Batch, Store


class Cursors(msgspec.Struct):
    """One partition's exports: the last exported offset per type, where to read on, and what was written.

    `shift` is added to offsets in the names of files: the log was moved, and its offsets began anew.
    """

    last: dict[str, int] = {}
    next_offset: int = 0
    files: int = 0
    rows: int = 0
    shift: int = 0


_decoder: Final = msgspec.msgpack.Decoder(Cursors)


def read_cursors(store: Store, partition: int) -> Cursors:
    """The cursors as last written; new ones for a partition that never exported."""
    data = store.get("meta", _key(partition))
    return Cursors() if data is None else _decoder.decode(data)


def stage_cursors(batch: Batch, partition: int, cursors: Cursors) -> None:
    """Add the cursors to a batch."""
    batch.put("meta", _key(partition), pack(cursors))


def _key(partition: int) -> bytes:
    return b"export\0" + partition.to_bytes(2, "big")
