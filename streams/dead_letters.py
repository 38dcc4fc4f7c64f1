"""Dead letters: what could not be used, raw, with its position and the reason."""

from typing import Final

from streams import topics
from streams.records import Output, Record
from streams.times import format_time

STAND_IN: Final = ("value", b"letter")
"""The header of a dead letter whose value is the mailbox's letter, because the record itself was gone."""

WHOLE: Final = ("whole", b"true")
"""The header of a dead letter that is about the record as a whole: none of its items was applied."""


def dead_letter(
    record: Record, *, topic: str, partition: int, item: int, reason: str, field: str, detail: str, at_ms: int
) -> Output:
    """The record on the dead-letters topic: the raw bytes, and headers that say where from and why."""
    headers = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(record.offset),
        "item": str(item),
        "reason": reason,
        "field": field,
        "detail": detail,
        "at": format_time(at_ms),
    }
    packed = tuple((name, value.encode(errors="replace")) for name, value in headers.items())
    return Output(topics.DEAD_LETTERS.name, partition, record.key, record.value, packed)
