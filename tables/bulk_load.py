"""A bulk load: an empty partition filled from its changelog by sorted files, which RocksDB takes over as they are."""

from bisect import bisect_left
from typing import Final

from streams.errors import BadState
from streams.profiles.row import decode_timer
from tables.changelog import FAMILIES_BY_LETTER, Changelog, due_key
from tables.store import Store

SLOTS_PER_RECORD: Final = 8
SLOTS_MAX: Final = 1 << 26
"""64 MiB; beyond eight million records of a partition more of its users are looked up for nothing."""

Newest = dict[bytes, bytes | None]


class BulkLoad:
    """One load of one partition. Until `finish` the store says that it is unfinished, and a restart begins anew."""

    def __init__(self, store: Store, changelog: Changelog, records: int) -> None:
        """Begin; `records` is about how many there will be."""
        self._store = store
        self._changelog = changelog
        self._meta: Newest = {}
        self._slots = bytearray(1 << (min(SLOTS_MAX, records * SLOTS_PER_RECORD) - 1).bit_length())
        changelog.begin_load()

    def take(self, newest: Newest) -> None:
        """Load records as they lie in the changelog, the last of each key, behind those taken before.

        Raises:
            BadState: a record that no batch of ours can have written.
            OutsideFailing: the disk refuses.
        """
        keys = sorted(newest)
        at = 0
        for letter, family in sorted(FAMILIES_BY_LETTER.items()):
            end = bisect_left(keys, bytes((letter + 1,)), at)
            if at < end and keys[at][:1] != bytes((letter,)):
                break
            rows = {key[1:]: newest[key] for key in keys[at:end]}
            self._load(family, rows)
            at = end
        if at < len(keys):
            raise BadState(f"the changelog holds a record of an unknown family, {keys[at][:1]!r}")

    def _load(self, family: str, rows: Newest) -> None:
        """Rows of one family, in the order of their keys."""
        if family == "meta":
            self._meta.update(rows)
            return
        if family == "users":
            due = self._moved_timers(rows)
            self._store.ingest("due", sorted(due), due)
        self._store.ingest(family, list(rows), rows)

    def _moved_timers(self, users: Newest) -> Newest:
        """The entries of the due index that the rows make, and those that rows taken before had made."""
        suspects = self._seen_before(users)
        due: Newest = {}
        for key, old in zip(suspects, self._store.get_many("users", suspects), strict=True):
            old_ms = None if old is None else decode_timer(old)
            if old_ms is not None:
                due[due_key(key, old_ms)] = None
        for key, new in users.items():
            new_ms = None if new is None else decode_timer(new)
            if new_ms is not None:
                due[due_key(key, new_ms)] = b""
        return due

    def _seen_before(self, keys: Newest) -> list[bytes]:
        """Every key that was asked about before, and a few others; remembers these."""
        slots, mask, suspects = self._slots, len(self._slots) - 1, []
        for key in keys:
            slot = hash(key) & mask
            if slots[slot]:
                suspects.append(key)
            else:
                slots[slot] = 1
        return suspects

    def finish(self, next_offset: int, append_ms: int) -> None:
        """Everything below the offset has been taken: from now on the partition can be opened."""
        self._changelog.end_load(self._meta, next_offset, append_ms)
