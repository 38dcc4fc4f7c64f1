"""The body of `POST /sdk/v1/track`: what a page's SDK has queued, as records of the events topic, and what was refused.

docs/SDK.md describes the protocol; tests/streams/vectors/sdk_*.json hold both sides to it.
"""

import re
from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec

from streams import topics
from streams.codec import partition_of, to_json
from streams.errors import BadInput
from streams.ingest.raw_record import read_record
from streams.records import Output
from streams.times import format_time, parse_time
from streams.track import EXTERNAL_ID_BYTES_MAX, decode_as, event_time

ITEMS_MAX: Final = 100
SKEW_MS_MAX: Final = 5 * 60_000
"""A device's clock that is wrong by more is set right by when the batch was sent, its items' times with it."""

DEVICE_KEY: Final = "device:"
"""Before a device's id: the key of whoever uses a device on which nobody is known."""

_DEVICE_ID: Final = re.compile(r"[0-9A-Za-z_-]{8,64}")
_ITEM_ID: Final = re.compile(r"[0-9A-Za-z:._-]{1,64}")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "event": ("name", "properties"),
    "purchase": ("product_id", "currency", "price", "quantity", "properties"),
    "attributes": (),
    "session_start": ("session_id",),
    "session_end": ("session_id", "duration_s"),
    "identify": (),
}
_WITH_APP: Final = frozenset({"event", "purchase", "session_start", "session_end"})
_NO_ATTRIBUTES: Final = frozenset({"type", "id", "time", "external_id", "device_id"})
_DETAIL_CHARS_MAX: Final = 300
_Fields = dict[str, msgspec.Raw]


class Envelope(msgspec.Struct, frozen=True):
    """A batch as it arrived: its items are looked at once the app is known to be ours."""

    app_id: str
    device_id: str
    items: list[msgspec.Raw]
    sent_at: str | None = None
    sdk: str = ""


class ItemFault(msgspec.Struct, frozen=True):
    """Why one item was refused for good: sending it again would change nothing."""

    index: int
    id: str
    reason: str
    field: str
    detail: str


class SdkBatch(msgspec.Struct, frozen=True):
    """What to append to the events topic, in the order of the items, and what was refused."""

    outputs: list[Output]
    faults: list[ItemFault]


class _Head(msgspec.Struct):
    id: str
    type: str
    time: str | None = None
    external_id: str | None = None


_envelope_decoder: Final = msgspec.json.Decoder(Envelope)
_head_decoder: Final = msgspec.json.Decoder(_Head)
_fields_decoder: Final = msgspec.json.Decoder(_Fields)


def read_envelope(body: bytes) -> Envelope:
    """Decode a batch without looking into its items.

    Raises:
        BadInput: nothing of it can be taken, and sending it again would change nothing.
    """
    envelope = decode_as(_envelope_decoder, body)
    if _DEVICE_ID.fullmatch(envelope.device_id) is None:
        raise BadInput("bad_value", "device_id", "8 to 64 letters, digits, - and _; a UUID is one")
    if len(envelope.items) > ITEMS_MAX:
        raise BadInput("too_many_objects", "items", f"{len(envelope.items)} items, at most {ITEMS_MAX}; send fewer")
    return envelope


def read_items(envelope: Envelope, now_ms: int, partitions: int, protected: Container[str]) -> SdkBatch:
    """One record for each item that intake will take, keyed by its user; the others are named with the reason.

    Args:
        envelope: of an app that is ours.
        now_ms: the door's time, by which a device's clock is set right.
        partitions: how many the events topic has.
        protected: names of attributes that no page may set.
    """
    skew_ms = _skew(envelope.sent_at, now_ms)
    outputs: list[Output] = []
    faults: list[ItemFault] = []
    for index, data in enumerate(envelope.items):
        item_id = ""
        try:
            head = decode_as(_head_decoder, data)
            item_id = head.id[:64]
            key, value = _record(envelope, head, data, skew_ms, protected)
            _check(head, key, value, now_ms)
        except BadInput as error:
            detail = error.detail[:_DETAIL_CHARS_MAX]
            faults.append(ItemFault(index, item_id, error.reason, error.field, detail))
            continue
        outputs.append(Output(topics.EVENTS.name, partition_of(key, partitions), key, value))
    return SdkBatch(outputs, faults)


def _skew(sent_at: str | None, now_ms: int) -> int:
    """Milliseconds to add to the device's times; 0 where its clock is about right, or not told."""
    try:
        skew_ms = now_ms - parse_time(sent_at) if sent_at is not None else 0
    except (ValueError, OverflowError):
        raise BadInput("bad_value", "sent_at", "not ISO 8601 such as 2026-01-31T12:00:00Z") from None
    return skew_ms if abs(skew_ms) > SKEW_MS_MAX else 0


def _record(
    envelope: Envelope, head: _Head, data: msgspec.Raw, skew_ms: int, protected: Container[str]
) -> tuple[bytes, bytes]:
    """The key and the value of an item's record. Raises BadInput."""
    if head.type not in _FIELDS:
        raise BadInput("unknown_type", "type", f"{head.type!r:.60} is not one of {', '.join(_FIELDS)}")
    if _ITEM_ID.fullmatch(head.id) is None:
        raise BadInput("bad_value", "id", "1 to 64 letters, digits and : . _ -; a UUID is one")
    user = _user(head)
    fields = decode_as(_fields_decoder, data)
    value: dict[str, Any] = {name: fields[name] for name in _FIELDS[head.type] if name in fields}
    if head.type == "attributes":
        value = _attributes(fields.get("attributes"), protected)
    if head.type in _WITH_APP:
        value["app_id"] = envelope.app_id
    if user is not None:
        value["external_id"] = user
    value |= {"type": head.type, "id": head.id}
    if user is None or head.type != "attributes":  # with a known user's it would be one of them
        value["device_id"] = envelope.device_id
    if head.time is not None:
        value["time"] = _shifted(head.time, skew_ms)
    is_of_device = user is None or head.type == "identify"
    key = f"{DEVICE_KEY}{envelope.device_id}" if is_of_device else str(user)
    return key.encode(), to_json(value)


def _user(head: _Head) -> str | None:
    """Whose item it is; None for whoever uses the device, whom nobody knows."""
    user = head.external_id
    if user is None:
        if head.type == "identify":
            raise BadInput("missing_field", "external_id", "required; it says who uses the device")
        return None
    size = len(user.encode())
    if not 0 < size <= EXTERNAL_ID_BYTES_MAX:
        raise BadInput("bad_value", "external_id", f"{size} bytes; an external id has 1 to {EXTERNAL_ID_BYTES_MAX}")
    if user.startswith(DEVICE_KEY):
        raise BadInput("bad_value", "external_id", f"no external id begins with {DEVICE_KEY!r}")
    return user


def _attributes(data: msgspec.Raw | None, protected: Container[str]) -> dict[str, Any]:
    """The attributes of an item, none of which may be one that a page cannot set."""
    if data is None:
        raise BadInput("missing_field", "attributes", "required; an object of names and values")
    values = decode_as(_fields_decoder, data)
    for name in values:
        if name in protected:
            raise BadInput("protected_attribute", name, "no page may set it; set it with a REST key")
        if name in _NO_ATTRIBUTES or name.startswith("_"):
            raise BadInput("bad_value", name[:40], "reserved; name the attribute otherwise")
    return dict(values)


def _shifted(time: str, skew_ms: int) -> str:
    """The time by the door's clock; one that cannot be read stays, for the check to refuse."""
    if not skew_ms:
        return time
    try:
        return format_time(parse_time(time) + skew_ms)
    except (ValueError, OverflowError):
        return time


def _check(head: _Head, key: bytes, value: bytes, now_ms: int) -> None:
    """Refuse what intake would refuse."""
    if head.type == "identify":
        if head.time is None:
            raise BadInput("missing_field", "time", "required; what happened before it is the device's")
        event_time(head.time, now_ms)
        return
    rejected = read_record(key, value, now_ms).rejected
    if rejected:
        raise BadInput(rejected[0].reason, rejected[0].field, rejected[0].detail)
