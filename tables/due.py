"""The due index of a partition: one entry per armed timer, ordered by time and user."""

from heapq import heappop, heappush
from typing import Final

from tables.store import Batch, Store

CHUNK_ROWS: Final = 250
_NO_LIMIT: Final = 1 << 63


class DueIndex:
    """Every entry due up to a horizon lies in a heap in memory; later ones only in the store.

    An entry in the heap that was moved or removed stays there until it surfaces, and is then skipped.
    Writes are kept until `stage`, and those of a stage until the next one, by which its batch must be written: on Kafka
    that takes a transaction, or a whole rebalance, and whoever looks meanwhile must not take the store for the truth.
    Rows are, so the index can be rebuilt from them.
    """

    def __init__(self, store: Store, partition: int) -> None:
        """Start with an empty heap; the first question loads the first chunk."""
        self._store = store
        self._prefix = partition.to_bytes(2, "big")
        self._heap: list[tuple[int, str]] = []
        self._valid: set[tuple[int, str]] = set()
        self._horizon_ms = -1
        self._added: set[tuple[int, str]] = set()
        self._removed: set[tuple[int, str]] = set()
        self._staged_added: set[tuple[int, str]] = set()
        self._staged_removed: set[tuple[int, str]] = set()

    def move(self, user_key: str, old_ms: int | None, new_ms: int | None) -> None:
        """Move a user's entry; None means none."""
        if old_ms == new_ms:
            return
        if old_ms is not None:
            entry = (old_ms, user_key)
            self._valid.discard(entry)
            self._added.discard(entry)
            self._removed.add(entry)
        if new_ms is not None:
            entry = (new_ms, user_key)
            self._removed.discard(entry)
            self._added.add(entry)
            if new_ms <= self._horizon_ms and entry not in self._valid:
                self._valid.add(entry)
                heappush(self._heap, entry)

    def earliest(self, until_ms: int) -> tuple[int, str] | None:
        """The earliest entry due at or before a time; it stays until moved."""
        heap = self._heap
        while True:
            if heap and heap[0][0] > until_ms:
                return None
            while heap and heap[0] not in self._valid:
                heappop(heap)
            if heap:
                return heap[0] if heap[0][0] <= until_ms else None
            if self._horizon_ms >= until_ms:
                return None
            self._load()

    def earliest_of_all(self) -> int | None:
        """When the next timer is due, however far away."""
        entry = self.earliest(_NO_LIMIT - 1)
        return None if entry is None else entry[0]

    def _load(self) -> None:
        """Bring the next chunk into the heap: whole milliseconds of the store, and what is perhaps not stored yet."""
        start = self._key(self._horizon_ms + 1, "")
        rows = [_entry(key) for key, _ in self._store.scan("due", start, self._prefix + b"\xff" * 9, CHUNK_ROWS)]
        horizon_ms = _NO_LIMIT
        if len(rows) == CHUNK_ROWS:
            horizon_ms = rows[-1][0]
            edge = self._key(horizon_ms, "")
            after = self._key(horizon_ms + 1, "")
            rows = [row for row in rows if row[0] < horizon_ms]
            rows += [_entry(key) for key, _ in self._store.scan("due", edge, after)]
        fresh = {row for row in rows if row not in self._staged_removed}
        fresh.update(entry for entry in self._staged_added if self._horizon_ms < entry[0] <= horizon_ms)
        fresh -= self._removed
        fresh.update(entry for entry in self._added if self._horizon_ms < entry[0] <= horizon_ms)
        self._horizon_ms = horizon_ms
        for entry in sorted(fresh - self._valid):
            self._valid.add(entry)
            heappush(self._heap, entry)

    def stage(self, batch: Batch) -> None:
        """Add the moves since the last call to a batch; that of the last call is written by now."""
        for due_ms, user_key in sorted(self._removed):
            batch.delete("due", self._key(due_ms, user_key))
        for due_ms, user_key in sorted(self._added):
            batch.put("due", self._key(due_ms, user_key), b"")
        self._staged_removed, self._removed = self._removed, set()
        self._staged_added, self._added = self._added, set()

    def _key(self, due_ms: int, user_key: str) -> bytes:
        return self._prefix + due_ms.to_bytes(8, "big") + user_key.encode()


def _entry(key: bytes) -> tuple[int, str]:
    return int.from_bytes(key[2:10], "big"), key[10:].decode()
