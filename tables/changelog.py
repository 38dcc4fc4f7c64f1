"""The changelog: a partition's state as records, so that another machine can rebuild it.

Every write of an agent's batch is one record: the family's letter and the key, and the value, or nothing for a
deletion. The due index is not among them: it follows from the rows.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

import msgspec

from streams.codec import pack
from streams.errors import BadState
from streams.profiles.row import decode_timer
from streams.records import Headers
from tables.replayed import is_mark, marks_of
from tables.store import Batch, Change, Store

_LETTERS: Final = {"users": b"u", "dispatches": b"d", "meta": b"m", "reports": b"r"}
FAMILIES_BY_LETTER: Final = {letter[0]: family for family, letter in _LETTERS.items()}
APPLY_RECORDS: Final = 2_000

Row = tuple[bytes | None, bytes | None, Headers]


class _Mark(msgspec.Struct, array_like=True):
    """Up to where the store holds the changelog, and the append time of the last record that it holds."""

    next_offset: int = 0
    append_ms: int = 0


_mark_decoder: Final = msgspec.msgpack.Decoder(_Mark)
_ids_decoder: Final = msgspec.msgpack.Decoder(dict[str, str])


class Changelog:
    """The changelog of one partition, seen from the store."""

    def __init__(self, store: Store, partition: int) -> None:
        """Continue where the store is."""
        self._store = store
        self._partition = partition.to_bytes(2, "big")
        data = store.get("meta", self._mark_key)
        self._mark = _Mark() if data is None else _mark_decoder.decode(data)

    @property
    def _mark_key(self) -> bytes:
        return b"changelog\0" + self._partition

    @property
    def _ids_key(self) -> bytes:
        return b"topic-ids\0" + self._partition

    @property
    def _load_key(self) -> bytes:
        return b"loading\0" + self._partition

    @property
    def next_offset(self) -> int:
        """The first changelog offset that the store does not hold."""
        return self._mark.next_offset

    @property
    def append_ms(self) -> int:
        """When the last change that the store holds was appended; 0 for none."""
        return self._mark.append_ms

    @property
    def topic_ids(self) -> dict[str, str]:
        """The ids of the topics that the state was built from."""
        data = self._store.get("meta", self._ids_key)
        return {} if data is None else _ids_decoder.decode(data)

    @property
    def _owner_key(self) -> bytes:
        return b"owner\0" + self._partition

    @property
    def owner(self) -> str:
        """The process that commits for the partition; empty after it has released it."""
        return (self._store.get("meta", self._owner_key) or b"").decode()

    def stage_owner(self, batch: Batch, owner: str) -> None:
        """Note who commits for the partition from now on."""
        batch.put("meta", self._owner_key, owner.encode())

    def stage_topic_ids(self, batch: Batch, topic_ids: dict[str, str]) -> None:
        """Remember them."""
        batch.put("meta", self._ids_key, pack(topic_ids))

    def rows(self, changes: Sequence[Change]) -> list[Row]:
        """The records of a batch's changes, in their order."""
        return [(_LETTERS[family] + key, value, ()) for family, key, value in changes]

    def stage(self, batch: Batch, next_offset: int, append_ms: int) -> None:
        """Note in a batch that it brings the store up to there."""
        self._mark = _Mark(next_offset, append_ms)
        batch.put_local("meta", self._mark_key, pack(self._mark))

    def apply(self, newest: Mapping[bytes, bytes | None], next_offset: int, append_ms: int) -> None:
        """Write records as they lie in the changelog, the last of each key, and what the due index needs.

        In batches, each of which leaves rows and due index true to one another; the offset stands in the last.
        What a crash cuts off is applied again.

        Raises:
            BadState: a record that no batch of ours can have written.
        """
        records = iter(newest.items())
        while part := dict(islice(records, APPLY_RECORDS)):
            batch = self._store.batch()
            self._stage_records(batch, part)
            self._store.write(batch)
        batch = self._store.batch()
        self.stage(batch, next_offset, append_ms)
        self._store.write(batch)

    def _stage_records(self, batch: Batch, records: Mapping[bytes, bytes | None]) -> None:
        users: dict[bytes, bytes | None] = {}
        for full_key, value in records.items():
            family = FAMILIES_BY_LETTER.get(full_key[0]) if full_key else None
            if family is None:
                raise BadState(f"the changelog holds a record of an unknown family, {full_key[:1]!r}")
            key = full_key[1:]
            if family == "users":
                users[key] = value
            if value is None:
                batch.delete(family, key)
            else:
                batch.put(family, key, value)
        self._move_timers(batch, users)

    def _move_timers(self, batch: Batch, users: dict[bytes, bytes | None]) -> None:
        keys = list(users)
        for key, old in zip(keys, self._store.get_many("users", keys), strict=True):
            new = users[key]
            old_ms = None if old is None else decode_timer(old)
            new_ms = None if new is None else decode_timer(new)
            if old_ms is not None:
                batch.delete("due", due_key(key, old_ms))
            if new_ms is not None:
                batch.put("due", due_key(key, new_ms), b"")

    @property
    def is_loading(self) -> bool:
        """Whether a load was begun and not ended: what the store holds then is to be wiped."""
        return self._store.get("meta", self._load_key) is not None

    def begin_load(self) -> None:
        """Note, so that power loss does not undo it, that the partition is being filled past RocksDB's own log."""
        batch = self._store.batch()
        batch.put_local("meta", self._load_key, b"")
        self._store.write(batch)
        self._store.sync()

    def end_load(self, meta: Mapping[bytes, bytes | None], next_offset: int, append_ms: int) -> None:
        """Write what is left, and that the store is whole up to there, at once."""
        batch = self._store.batch()
        for key, value in meta.items():
            if value is None:
                batch.delete("meta", key)
            else:
                batch.put("meta", key, value)
        batch.delete("meta", self._load_key)
        self.stage(batch, next_offset, append_ms)
        self._store.write(batch)

    def wipe(self) -> None:
        """Forget the partition's state: it is to be restored from the start."""
        batch = self._store.batch()
        after = (int.from_bytes(self._partition, "big") + 1).to_bytes(2, "big")
        ranges = [(family, self._partition, after) for family in ("users", "due", "reports")]
        letters = [bytes((kind,)) for kind in range(256)]
        ranges += [("dispatches", letter + self._partition, letter + after) for letter in letters]
        for family, start, end in ranges:
            if any(self._store.scan(family, start, end, 1)):  # what deletes nothing would be a file to merge, too
                batch.delete_range(family, start, end)
        for key, _ in list(self._store.scan("meta", b"", b"\xff")):
            if self._owns(key):
                batch.delete("meta", key)
        self._mark = _Mark()
        self._store.write(batch)

    def _owns(self, key: bytes) -> bool:
        """Whether a key in `meta` is the partition's: it ends with the partition, but a mark of a replay begins so."""
        if is_mark(key):
            return key.startswith(marks_of(self._partition))
        return key.endswith(b"\0" + self._partition)


def due_key(user_key: bytes, due_ms: int) -> bytes:
    """As `tables/due.py` writes it: the partition, the time, the user."""
    return user_key[:2] + due_ms.to_bytes(8, "big") + user_key[2:]
