"""Replays: dead letters back into the events topic, as they came, and only what was refused of them."""

from collections.abc import Iterable
from typing import Final

import msgspec

from streams import topics
from streams.dead_letters import MORE, STAND_IN, WHOLE
from streams.records import Headers, Output, Record

REPLAY_OF: Final = "replay_of"
REPLAY_ITEMS: Final = "replay_items"


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, read: where its record lay, why it was refused, and what it holds.

    `value` is the record's bytes; where `stands_in` holds they were gone and are something else. It stands for the
    items `more`, too. A letter that no agent of ours wrote has the reason `unreadable` and no topic.
    """

    topic: str
    partition: int
    offset: int
    item: int
    reason: str
    field: str
    detail: str
    at: str
    whole: bool
    stands_in: bool
    key: bytes | None
    value: bytes
    more: frozenset[int] = frozenset()

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the record."""
        return self.topic, self.partition, self.offset


def read_letter(record: Record) -> Letter:
    """The dead letter in a record of dead-letters."""
    headers = {name: value.decode(errors="replace") for name, value in record.headers}
    try:
        return Letter(
            headers["topic"],
            int(headers["partition"]),
            int(headers["offset"]),
            int(headers["item"]),
            headers["reason"],
            headers["field"],
            headers["detail"],
            headers["at"],
            WHOLE in record.headers,
            STAND_IN in record.headers,
            record.key,
            record.value,
            _numbers(headers.get(MORE, "")),
        )
    except (KeyError, ValueError) as error:
        detail = f"header {error}; only agents write this topic"
        return Letter("", 0, 0, 0, "unreadable", "", detail, "", False, True, record.key, record.value)


def replays_of(letters: Iterable[Letter]) -> list[Output]:
    """The records to append to `events`: one per refused record, however many of its items were refused.

    Key and partition are those of the refused record. Only the refused items are applied, unless the
    record was refused whole. An object without a time of its own happens when it is replayed.
    """
    groups: dict[tuple[str, int, int], list[Letter]] = {}
    for letter in letters:
        groups.setdefault(letter.place, []).append(letter)
    return [_replay(group) for group in groups.values()]


def _replay(group: list[Letter]) -> Output:
    first = group[0]
    headers: Headers = ((REPLAY_OF, f"{first.topic}/{first.partition}/{first.offset}".encode()),)
    if not any(letter.whole for letter in group):
        items = ",".join(
            str(item)
            for item in sorted(
                {*(letter.item for letter in group), *(item for letter in group for item in letter.more)}
            )
        )
        headers += ((REPLAY_ITEMS, items.encode()),)
    return Output(topics.EVENTS.name, first.partition, first.key, first.value, headers)


def replayed_items(headers: Headers) -> frozenset[int] | None:
    """The items that a replay is about; None for all of them, as in every record that is no replay."""
    for name, value in headers:
        if name == REPLAY_ITEMS and value.replace(b",", b"").isdigit():
            return _numbers(value.decode())
    return None


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(item) for item in text.split(",") if item)
