"""Records of a log, as values: what is read, and what is to be appended."""

from typing import Final

import msgspec

Headers = tuple[tuple[str, bytes], ...]
Place = tuple[str, int]
"""A partition of a topic: the topic's short name and the partition's number."""

# A slice is the unit of work: consecutive records of one partition, within these bounds.
SLICE_RECORDS_MAX: Final = 2_000
SLICE_BYTES_MAX: Final = 1024 * 1024


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as it stands in a partition; `append_ms` is the log's own time.

    Many are kept in memory. They can be in no cycle, so the garbage collector need not walk them, which it
    would do on the loop.
    """

    offset: int
    append_ms: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


class Output(msgspec.Struct, frozen=True, gc=False):
    """One record to append to a partition of a topic (its short name)."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
