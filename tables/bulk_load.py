"""A bulk load: an empty partition filled from its changelog by sorted files, which RocksDB takes over as they are."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final

from streams.errors import BadState
from streams.profiles.row import decode_timer, decode_timers
from tables.changelog import FAMILIES_BY_LETTER, Changelog, due_key
from tables.store import Store

SLOTS_PER_RECORD: Final = 8
SLOTS_MAX: Final = 1 << 26
"""64 MiB; beyond eight million records of a partition more of its users are looked up for nothing."""

PIECE_RECORDS: Final = 500

Newest = dict[bytes, bytes | None]
Piece = tuple[list[bytes], Sequence[bytes | None]]


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
            if at < end:
                self._load(family, keys[at:end], newest)
            at = end
        if at < len(keys):
            raise BadState(f"the changelog holds a record of an unknown family, {keys[at][:1]!r}")

    def _load(self, family: str, full_keys: list[bytes], newest: Newest) -> None:
        """Rows of one family, by their ascending keys in the changelog."""
        if family == "meta":
            self._meta.update((full_key[1:], newest[full_key]) for full_key in full_keys)
        elif family == "users":
            due: Newest = {}
            self._store.ingest(family, self._users(full_keys, newest, due))
            if due:
                entries = sorted(due)
                self._store.ingest("due", [(entries, [due[entry] for entry in entries])])
        else:
            self._store.ingest(family, (_rows(piece, newest) for piece in _pieces(full_keys)))

    def _users(self, full_keys: list[bytes], newest: Newest, due: Newest) -> Iterator[Piece]:
        """The rows, while the entries of the due index that they make, and that rows before them made, are added."""
        mask = len(self._slots) - 1
        for piece in _pieces(full_keys):
            keys, values = _rows(piece, newest)
            self._move_timers(keys, values, [hash(full_key) & mask for full_key in piece], due)
            yield keys, values

    def _move_timers(
        self, keys: Sequence[bytes], values: Sequence[bytes | None], places: list[int], due: Newest
    ) -> None:
        slots = self._slots
        suspects = [key for key, place in zip(keys, places, strict=True) if slots[place]]
        for key, old in zip(suspects, self._store.get_many("users", suspects), strict=True):
            old_ms = None if old is None else decode_timer(old)
            if old_ms is not None:
                due[due_key(key, old_ms)] = None
        for key, place, new_ms in zip(keys, places, _timers(values), strict=True):
            if new_ms is not None:
                due[due_key(key, new_ms)] = b""
                slots[place] = 1

    def finish(self, next_offset: int, append_ms: int) -> None:
        """Everything below the offset has been taken: from now on the partition can be opened."""
        self._changelog.end_load(self._meta, next_offset, append_ms)


def _pieces(full_keys: list[bytes]) -> Iterator[list[bytes]]:
    """So few at a time that the processor still has them at hand when they are used again."""
    return (full_keys[start : start + PIECE_RECORDS] for start in range(0, len(full_keys), PIECE_RECORDS))


def _rows(piece: list[bytes], newest: Newest) -> Piece:
    """Keys without the family's letter, and their values."""
    # Values lie about in memory in another order: `itemgetter` waits for several of them at once.
    values = itemgetter(*piece)(newest) if len(piece) > 1 else (newest[piece[0]],)
    return [full_key[1:] for full_key in piece], values


def _timers(values: Sequence[bytes | None]) -> list[int | None]:
    """The timer of each row; None where there is none, or no row."""
    rows = [value for value in values if value is not None]
    timers = decode_timers(rows)
    if len(rows) < len(values):
        found = iter(timers)
        return [None if value is None else next(found) for value in values]
    return timers
