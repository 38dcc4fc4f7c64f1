"""Dispatches: every send that was decided, and what became of it."""

from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from streams.codec import pack
from tables.store import Batch, Store

State = Literal["attempting", "held", "sent", "aborted", "failed"]
FINAL: Final = ("sent", "aborted", "failed")


class Dispatch(msgspec.Struct, array_like=True):
    """One dispatch. `request` holds the rendered bytes while the dispatch is open, and nothing after."""

    dispatch_id: str
    campaign: str
    channel: str
    user: str
    version: int
    decided_ms: int
    state: State
    attempts: int = 0
    updated_ms: int = 0
    reason: str = ""
    address: str = ""
    request: bytes = b""


_decoder: Final = msgspec.msgpack.Decoder(Dispatch)
_counts_decoder: Final = msgspec.msgpack.Decoder(dict[str, dict[str, int]])

Counts = dict[str, dict[str, int]]


class Dispatches:
    """The dispatches of one partition; only the delivery agent stages changes.

    Open ones lie apart from final ones, so that a restart finds them without reading all.
    """

    def __init__(self, store: Store, partition: int) -> None:
        """Continue with what is stored; `counts` is {campaign: {state: n}} over all dispatches ever."""
        self._store = store
        self._partition = partition.to_bytes(2, "big")
        data = store.get("meta", b"dispatch-counts\0" + self._partition)
        self.counts: Counts = {} if data is None else _counts_decoder.decode(data)

    def known(self, dispatch_ids: list[str]) -> set[str]:
        """Those of the ids that are recorded already."""
        found: set[str] = set()
        for kind in (b"o", b"f"):
            values = self._store.get_many("dispatches", [self._key(kind, name) for name in dispatch_ids])
            found.update(name for name, value in zip(dispatch_ids, values, strict=True) if value is not None)
        return found

    def open(self) -> list[Dispatch]:
        """Every dispatch without a final outcome."""
        return [_decoder.decode(value) for _, value in self._scan(b"o")]

    def all(self) -> Iterator[Dispatch]:
        """Every dispatch, the open ones first."""
        for kind in (b"o", b"f"):
            for _, value in self._scan(kind):
                yield _decoder.decode(value)

    def stage(self, batch: Batch, dispatch: Dispatch, *, old_state: State | None) -> None:
        """Add a dispatch in its new state to a batch; `old_state` is None for one never recorded."""
        by_state = self.counts.setdefault(dispatch.campaign, {})
        if old_state is not None:
            by_state[old_state] -= 1
        by_state[dispatch.state] = by_state.get(dispatch.state, 0) + 1
        if dispatch.state in FINAL:
            dispatch.request = b""
            if old_state is not None:
                batch.delete("dispatches", self._key(b"o", dispatch.dispatch_id))
            batch.put("dispatches", self._key(b"f", dispatch.dispatch_id), pack(dispatch))
        else:
            batch.put("dispatches", self._key(b"o", dispatch.dispatch_id), pack(dispatch))

    def stage_counts(self, batch: Batch) -> None:
        """Add the counts to the batch that changed them."""
        batch.put("meta", b"dispatch-counts\0" + self._partition, pack(self.counts))

    def _key(self, kind: bytes, dispatch_id: str) -> bytes:
        return kind + self._partition + dispatch_id.encode()

    def _scan(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        prefix = kind + self._partition
        return self._store.scan("dispatches", prefix, prefix + b"\xff")
