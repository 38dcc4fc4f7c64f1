"""How deep JSON is nested: the limit holds for every field, also for those that nobody reads."""

from typing import Final

import msgspec

from streams.errors import BadInput

DEPTH_MAX: Final = 32
FIELD_CHARS_MAX: Final = 40

_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_raw_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check_depth(data: bytes, *, skip: tuple[str, ...] = ()) -> None:
    """See that no field of a JSON object, itself level 1, reaches below level 32.

    For an object with at most 32 brackets that takes a tenth of a microsecond; beyond, its text is scanned.

    Args:
        data: one JSON object that has been decoded without an error, whatever was decoded of it.
        skip: names of fields whose values are looked at elsewhere.

    Raises:
        BadInput: `too_deep`, naming the field.
    """
    if not may_be_deep(data) or (not skip and not is_deeper(data, DEPTH_MAX)):
        return
    try:
        fields = _raw_object_decoder.decode(data)
    except msgspec.DecodeError as error:  # a name that no decoder had to read before
        raise BadInput("not_json", "", f"{error}; send one JSON object") from None
    deep = [name for name, value in fields.items() if name not in skip and is_deeper(bytes(value), DEPTH_MAX - 1)]
    if deep or not skip:  # without `skip` something is too deep, if only under a name that is written twice
        field = deep[0] if deep else ""
        raise BadInput("too_deep", field[:FIELD_CHARS_MAX], f"nested deeper than {DEPTH_MAX} levels; flatten it")


def may_be_deep(data: bytes) -> bool:
    """Whether the limit could be broken at all, by the number of brackets: a tenth of a microsecond."""
    return _opened(data) > DEPTH_MAX


def _opened(data: bytes) -> int:
    return data.count(b"{") + data.count(b"[")


def is_deeper(data: bytes, levels: int) -> bool:
    """Whether valid JSON has more than so many levels: they are taken away from the inside, one by one."""
    if _opened(data) <= levels:
        return False
    brackets = _without_strings(data).translate(_ONE_KIND, _NOT_BRACKETS)
    for left in range(levels, 0, -1):
        if not brackets or b"[" * (left + 1) in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _without_strings(data: bytes) -> bytes:
    """Valid JSON without what stands between quotes; every backslash of JSON lies within a string."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(data.split(b'"')[::2])
