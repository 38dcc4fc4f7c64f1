"""The memory budget of a process, and what of it goes to RocksDB and to rows that are kept decoded.

By default 64 MiB are RocksDB's, for blocks and, at most three quarters of them, write buffers; 80 MiB are for decoded
rows, which take about ten times their stored size. Another budget scales them alike.
"""

from typing import Final

from config.settings import MEMORY_BYTES

ROWS_STORED_BYTES: Final = 8 * 1024 * 1024
"""Of rows in their stored form, all partitions of a process together, at the default budget."""


def store_share(memory_bytes: int) -> float:
    """How many times its default amounts RocksDB gets."""
    return memory_bytes / MEMORY_BYTES


def rows_bytes(memory_bytes: int, partitions: int) -> int:
    """Bytes of rows, in their stored form, that each partition may keep decoded."""
    return int(ROWS_STORED_BYTES * memory_bytes / MEMORY_BYTES) // partitions
