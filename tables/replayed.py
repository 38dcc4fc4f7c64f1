"""Which dead letters were put back into events: a mark per letter, kept with the commit that did it."""

from typing import Final

from tables.store import Batch, Store

_MARKS: Final = b"replayed\0"


def is_mark(key: bytes) -> bool:
    """Whether a key in `meta` is such a mark: unlike other keys of a partition it ends with an offset."""
    return key.startswith(_MARKS)


def marks_of(partition: bytes) -> bytes:
    """What the keys of a partition's marks begin with."""
    return _MARKS + partition


class Replayed:
    """The marks of one partition of dead-letters."""

    def __init__(self, store: Store, partition: int) -> None:
        """Read and stage marks of this partition."""
        self._store = store
        self._prefix = marks_of(partition.to_bytes(2, "big"))

    def between(self, start: int, end: int) -> dict[int, int]:
        """The replayed letters with offsets in [start, end), each with the time of its replay in milliseconds."""
        rows = self._store.scan("meta", self._key(start), self._key(end))
        return {int.from_bytes(key[-8:], "big"): int.from_bytes(value, "big") for key, value in rows}

    def stage(self, batch: Batch, offset: int, at_ms: int) -> None:
        """Add a letter's mark to the batch that is committed with its replay."""
        batch.put("meta", self._key(offset), at_ms.to_bytes(8, "big"))

    def stage_forgetting(self, batch: Batch, start: int, limit: int) -> int:
        """Remove at most so many marks of letters below the offset, which retention has dropped; returns how many."""
        keys = [key for key, _ in self._store.scan("meta", self._key(0), self._key(start), limit)]
        for key in keys:
            batch.delete("meta", key)
        return len(keys)

    def _key(self, offset: int) -> bytes:
        return self._prefix + offset.to_bytes(8, "big")
