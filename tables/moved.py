"""Marks of a move to Kafka: in the folder that was left, and in each changelog partition until all is there."""

from typing import Final

import msgspec

from streams.codec import pack
from streams.errors import BadSetting, BadState
from tables.store import Batch, Store

_LEFT: Final = b"moved"
_ARRIVING: Final = b"moving\0"


class Moved(msgspec.Struct, frozen=True):
    """Where a folder went, or is going: from then on nothing may change it.

    `carried`: all of it is there, and workers may have begun to change it.
    """

    move_id: str
    app: str
    partitions: int
    done: bool = False
    carried: bool = False


_decoder: Final = msgspec.msgpack.Decoder(Moved)


def read_moved(store: Store) -> Moved | None:
    """The mark of a folder that was moved, or is being moved; None for any other."""
    data = store.get("meta", _LEFT)
    return None if data is None else _decoder.decode(data)


def stage_moved(batch: Batch, moved: Moved) -> None:
    """Add that mark to a batch."""
    batch.put("meta", _LEFT, pack(moved))


def refuse_moved(store: Store) -> None:
    """Raise BadSetting for a folder that lives on in Kafka: two of it would send everything twice."""
    moved = read_moved(store)
    if moved is not None:
        what = "was moved" if moved.done else "is being moved (repeat `move` to its end)"
        raise BadSetting(
            f"this folder {what} to Kafka, to the topics of HEADRACE_APP={moved.app} with {moved.partitions} "
            "partitions; use HEADRACE_BROKER=kafka://… with another HEADRACE_DATA, or restore a backup"
        )


def arriving(partition: int) -> bytes:
    """The key in `meta` that says, while it holds anything, that a partition's state has not wholly arrived."""
    return _ARRIVING + partition.to_bytes(2, "big")


def refuse_arriving(store: Store, partition: int) -> None:
    """Raise BadState while a partition's state has not wholly arrived."""
    if store.get("meta", arriving(partition)):
        raise BadState(
            f"partition {partition}: a move into these topics is not finished; repeat `move` with the same folder"
        )
