"""How much a row holds: whatever people and pages can make grow is bounded in count and in bytes.

A row is one record of the changelog, and a broker takes no record above 6 MiB: a larger one would end each worker that
takes it up. All of these limits together leave half of that to what comes of definitions, and to a row that arrives in
parts (`streams/identity.py`).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from streams.codec import pack
from streams.events import JSONScalar, Properties
from streams.profiles.row import OpenDispatch, User

ROW_ATTRIBUTES_MAX: Final = 1_000
ROW_ATTRIBUTES_BYTES_MAX: Final = 512 * 1024
"""Of the names and values of a user's attributes in UTF-8."""

ROW_NAMES_MAX: Final = 1_000
ROW_NAMES_BYTES_MAX: Final = 256 * 1024
"""Of the names of a user's events, and as much of those of the products."""

ROW_CURRENCIES_MAX: Final = 200
"""There are about 180; three letters allow for 17,576."""

WAITING_MAX: Final = 500
"""Entries into campaigns that wait for their delay; one more is aborted at once."""

WAITING_BYTES_MAX: Final = 256 * 1024
"""Of all that waits, asked for an entry with more event properties than `WAITING_SMALL_BYTES`."""

WAITING_SMALL_BYTES: Final = 512

DISPATCHES_MAX: Final = 1_000
"""Dispatches that a row remembers: beyond, the first that is final is forgotten early; where all are open, one more is
aborted."""

FREE_NAMES: Final = 256
"""So many names with their values are within the limits however long they are: no byte is counted until then."""


def text_bytes(text: str) -> int:
    """How long a text is in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def attribute_bytes(name: str, value: JSONScalar) -> int:
    """How much an attribute takes; nothing for one that is to be deleted."""
    if value is None:
        return 0
    return text_bytes(name) + (text_bytes(value) if isinstance(value, str) else 8)


def attributes_bytes(attributes: Mapping[str, JSONScalar]) -> int:
    """How much all of them take."""
    return sum([attribute_bytes(name, value) for name, value in attributes.items()])


def names_bytes(names: Iterable[str]) -> int:
    """How much all of them take."""
    return sum([text_bytes(name) for name in names])


def may_wait(user: User, properties: Properties) -> bool:
    """Whether one more entry with these event properties may wait in the row."""
    if len(user.waiting) >= WAITING_MAX:
        return False
    size = len(pack(properties)) if properties else 0
    return size <= WAITING_SMALL_BYTES or size + len(pack(user.waiting)) <= WAITING_BYTES_MAX


def note_dispatch(user: User, dispatch_id: str, dispatch: OpenDispatch) -> bool:
    """Let the row wait for a dispatch's outcome; False where it waits for too many."""
    dispatches = user.dispatches
    if len(dispatches) >= DISPATCHES_MAX:
        final = next((name for name, each in dispatches.items() if each.final_ms), None)
        if final is None:
            return False
        del dispatches[final]
    dispatches[dispatch_id] = dispatch
    return True
