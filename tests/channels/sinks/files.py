"""What the tests of export files write, and what they see in the folder."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastavro

from channels.sinks.avro_files import AvroFiles, Written
from streams.currents import custom_event
from streams.effects import CurrentsRecord
from streams.events import CustomEvent
from streams.exports import topic_value
from streams.mailbox import Cause

NOW_MS = 1_760_000_000_999

Records = list[tuple[int, CurrentsRecord]]


def views(count: int, first_offset: int = 0) -> Records:
    """So many custom events at consecutive offsets."""
    return [
        (offset, custom_event(f"u{offset}", CustomEvent("view", NOW_MS, {}), Cause("t", 0, offset, 0)))
        for offset in range(first_offset, first_offset + count)
    ]


def write(sink: AvroFiles, records: Sequence[tuple[int, CurrentsRecord]], partition: int = 0) -> Written:
    """Write and wait."""
    event_type = records[0][1].event_type if records else ""
    return asyncio.run(sink.write(event_type, values_of(records), partition))


def values_of(records: Sequence[tuple[int, CurrentsRecord]]) -> list[tuple[int, bytes]]:
    """The records as they lie in the topic."""
    return [(offset, topic_value(record)) for offset, record in records]


def rows_in(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, as another reader sees them."""
    with path.open("rb") as file:
        return [dict(row) for row in fastavro.reader(file) if isinstance(row, dict)]


def ids_in(root: Path) -> Counter[str]:
    """How often each id occurs in the finished files below a folder."""
    return Counter(row["id"] for path in AvroFiles(root, "headrace").files() for row in rows_in(path))


def left_over(root: Path) -> list[Path]:
    """What lies in the folder of unfinished files."""
    return list((root / ".tmp").iterdir())
