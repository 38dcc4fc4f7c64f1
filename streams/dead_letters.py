"""Dead letters: what could not be used, raw, with its position and the reason."""

from typing import Final

from streams import topics
from streams.records import Output, Record
from streams.times import format_time

STAND_IN: Final = ("value", b"letter")
"""The header of a dead letter whose value is the mailbox's letter, because the record itself was gone."""

WHOLE: Final = ("whole", b"true")
"""The header of a dead letter that is about the record as a whole: none of its items was applied."""

MORE: Final = "more"
"""The header of a dead letter that stands for more items of its record: their numbers, with commas between."""

LETTERS_BYTES_MIN: Final = 256 * 1024
LETTERS_TIMES_MAX: Final = 8
"""Letters of one record hold its bytes so often at most, or take so much: ten thousand objects may be refused in it."""


def letters_max(record_bytes: int) -> int:
    """How many letters a record of so many bytes may have; the last stands for all other items that are refused."""
    return max(LETTERS_TIMES_MAX, LETTERS_BYTES_MIN // max(1, record_bytes))


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
