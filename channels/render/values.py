"""How values behave in a template: what they print as, when they are blank, when they are equal."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec
from liquid import Undefined
from liquid.builtin.expressions.primitive import Blank, Empty

MISSING: Final = Undefined("missing")
"""What a missing name gives, and null likewise: prints as nothing, counts as false, loops zero times."""

MOMENT_FORMAT: Final = "%Y-%m-%d %H:%M:%S %z"
"""How a time prints that no `date` filter has formatted."""


def is_missing(value: object) -> bool:
    """Whether a value is missing or null."""
    return value is None or isinstance(value, Undefined)


def is_blank(value: object) -> bool:
    """Whether `value == blank`: missing, null, empty, or only white space; `false` and 0 are values."""
    if isinstance(value, str):
        return not value or value.isspace()
    return is_missing(value) or (isinstance(value, list | tuple | dict) and not value)


def equal(left: object, right: object) -> bool:
    """Whether `left == right` in a condition; a boolean equals only a boolean, never 1 or 'true'."""
    for special, other in ((left, right), (right, left)):
        if isinstance(special, Blank):
            return isinstance(other, Blank) or is_blank(other)
        if isinstance(special, Empty):
            return isinstance(other, Empty) or (isinstance(other, str | list | tuple | dict) and not other)
    if is_missing(left) or is_missing(right):
        return is_missing(left) and is_missing(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return left == right


def to_text(value: object) -> str:
    """Return what a value prints as: lists item by item without a sign between, objects as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "".join(map(to_text, value))
    if isinstance(value, dict):
        return to_json(value)
    if isinstance(value, range):
        return f"{value.start}..{value.stop - 1}"
    return value.strftime(MOMENT_FORMAT) if isinstance(value, datetime) else str(value)


def to_json(value: object) -> str:
    """Return a value as JSON, keys in the order they came.

    Raises:
        msgspec.EncodeError, TypeError: it holds what JSON cannot.
    """
    return msgspec.json.encode(value, enc_hook=_plain).decode()


def identity(value: object) -> bytes:
    """Return bytes that are the same exactly for values that `uniq` takes for one: 1, 1.0 and '1' differ."""
    return msgspec.json.encode(value, enc_hook=_plain, order="deterministic")


def _plain(value: object) -> object:
    """Return what msgspec can encode for a value that it does not know."""
    if isinstance(value, Undefined):
        return None
    return dict(value) if isinstance(value, Mapping) else str(value)
