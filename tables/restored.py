"""What a restored folder says of itself: until when nobody knows what its original has sent.

Where it was moved to Kafka, each partition's state says the same, wherever that goes.
"""

from typing import Final, Literal

import msgspec

from streams.codec import pack
from tables.store import Batch, Store

Hold = Literal["unkeyed", "all", "none"]
"""Which uncertain dispatches wait for an operator: those whose other side knows no repeats, all, or none."""

_FOLDER: Final = b"restored"
_PARTITION: Final = b"restored\0"


class Restored(msgspec.Struct, frozen=True):
    """The folder is as of `backup_ms`; dispatches decided up to `until_ms` may have gone out from its original."""

    backup_ms: int
    until_ms: int
    hold: Hold


_decoder: Final = msgspec.msgpack.Decoder(Restored)


def read_restored(store: Store, partition: int) -> Restored | None:
    """The last restore of a partition's state, or of its folder; None if it was never restored."""
    data = store.get("meta", _key(partition)) or store.get("meta", _FOLDER)
    return None if data is None else _decoder.decode(data)


def stage_restored(batch: Batch, restored: Restored, partition: int | None = None) -> None:
    """Add a restore's mark to a batch, of a partition or of the whole folder."""
    batch.put("meta", _FOLDER if partition is None else _key(partition), pack(restored))


def _key(partition: int) -> bytes:
    return _PARTITION + partition.to_bytes(2, "big")
