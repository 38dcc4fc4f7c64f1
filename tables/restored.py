"""What a restored folder says of itself: until when nobody knows what its original has sent."""

from typing import Final, Literal

import msgspec

from streams.codec import pack
from tables.store import Batch, Store

Hold = Literal["unkeyed", "all", "none"]
"""Which uncertain dispatches wait for an operator: those whose other side knows no repeats, all, or none."""

_KEY: Final = b"restored"


class Restored(msgspec.Struct, frozen=True):
    """The folder is as of `backup_ms`; dispatches decided up to `until_ms` may have gone out from its original."""

    backup_ms: int
    until_ms: int
    hold: Hold


_decoder: Final = msgspec.msgpack.Decoder(Restored)


def read_restored(store: Store) -> Restored | None:
    """The folder's last restore; None for one that was never restored."""
    data = store.get("meta", _KEY)
    return None if data is None else _decoder.decode(data)


def stage_restored(batch: Batch, restored: Restored) -> None:
    """Add a restore's mark to a batch."""
    batch.put("meta", _KEY, pack(restored))
