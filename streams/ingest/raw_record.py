"""A record of the events topic: one object with a `type`, or a whole track body."""

import re
from typing import Final

import msgspec

from streams import canary, engagement_item, track
from streams.depth import check_depth, may_be_deep
from streams.engagement import SigningKeys
from streams.errors import BadInput
from streams.events import Event, JSONValue
from streams.ids import DEVICE_PREFIX, device_key
from streams.mailbox import Probe

RECORD_BYTES_MAX: Final = 4 * 1024 * 1024
ITEMS_MAX: Final = 10_000


class Routed(msgspec.Struct, frozen=True, gc=False):
    """An event of one user, and its index within the record.

    `user` is a user key: an external id, or `device:` and the id of a device that nobody is known on.
    """

    user: str
    event: Event
    item: int


class Identified(msgspec.Struct, frozen=True):
    """The anonymous user with the key `user` is the one with the external id, from `time_ms` on; the only item."""

    user: str
    external_id: str
    time_ms: int


class Rejected(msgspec.Struct, frozen=True):
    """An item of the record that cannot be used, or item 0 and `whole` for the record with all its items."""

    item: int
    reason: str
    field: str
    detail: str
    whole: bool = False


class End(msgspec.Struct, frozen=True):
    """The replay ends here: bring the partition's clock to `at_ms`."""

    at_ms: int


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What one record holds, in order."""

    routed: list[Routed]
    rejected: list[Rejected]
    end: End | None = None
    probe: Probe | None = None
    identified: Identified | None = None


class _Head(msgspec.Struct):
    """The parts that tell what a record is; arrays stay raw so that one bad item spoils no other."""

    type: str | None = None
    external_id: str | None = None
    device_id: JSONValue = None
    time: str | None = None
    attributes: list[msgspec.Raw] | None = None
    events: list[msgspec.Raw] | None = None
    purchases: list[msgspec.Raw] | None = None


class _Owner(msgspec.Struct):
    external_id: str | None = None
    device_id: JSONValue = None


class _AloneEvent(track.EventObject, tag_field="type", tag="event", gc=False):
    external_id: str | None = None
    device_id: str | None = None
    attributes: list[msgspec.Raw] | None = None
    events: list[msgspec.Raw] | None = None
    purchases: list[msgspec.Raw] | None = None


class _AlonePurchase(track.PurchaseObject, tag_field="type", tag="purchase", gc=False):
    external_id: str | None = None
    device_id: str | None = None
    attributes: list[msgspec.Raw] | None = None
    events: list[msgspec.Raw] | None = None
    purchases: list[msgspec.Raw] | None = None


_alone_decoder: Final = msgspec.json.Decoder(_AloneEvent | _AlonePurchase)
_head_decoder: Final = msgspec.json.Decoder(_Head)
_owner_decoder: Final = msgspec.json.Decoder(_Owner)
_ARRAYS: Final = ("attributes", "events", "purchases")
IDENTIFY: Final = "identify"
_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
UNBLOCK: Final = "unblock"
_TYPES: Final = ("event", "attributes", "purchase", "session_start", "session_end", IDENTIFY, UNBLOCK)


def read_record(
    key: bytes | None, value: bytes, append_ms: int, *, replay: bool = False, keys: SigningKeys = ()
) -> Reading:
    """Decode and check one record of the events topic; a pure function of its bytes and append time.

    Args:
        key: the record's key, the external id, or None to take it from the value.
        value: JSON, at most 4 MiB.
        append_ms: the record's stored append time.
        replay: under the stream clock, where an `{"type": "end", "time": …}` closes a partition.
        keys: what the tokens of engagements are signed by.

    Never raises: whatever cannot be used is in `rejected`, the rest in `routed`.
    """
    try:
        return _read(key, value, append_ms, keys, replay=replay)
    except Exception as error:  # noqa: BLE001  # what nobody has thought of must not stop the partition for good
        detail = f"reading it raised {type(error).__name__}, which is a fault of this program; tell its maintainers"
        return Reading([], [_rejected(0, BadInput("reader_error", "", detail), whole=True)])


def _read(key: bytes | None, value: bytes, append_ms: int, keys: SigningKeys, *, replay: bool) -> Reading:
    try:
        routed = _quick(key, value, append_ms)
        if routed is not None:
            return Reading([routed], [])
        head = _read_head(value)
        if head.type == "end" and replay:
            return Reading([], [], End(track.event_time(head.time, append_ms)))
        if head.type == canary.TYPE:
            return _canary(value, replay=replay)
        check_depth(value, skip=_ARRAYS if head.type is None else ())
        if head.type == IDENTIFY:
            return Reading([], [], identified=_identify(head, key, append_ms))
        if head.type == engagement_item.TYPE:
            return Reading([_engagement(head, key, value, append_ms, keys)], [])
        if head.type is not None:
            return Reading([_alone(head, key, value, append_ms)], [])
    except BadInput as error:
        return Reading([], [_rejected(0, error, whole=True)])
    return _read_body(head, key, append_ms)


def _canary(value: bytes, *, replay: bool) -> Reading:
    """A canary's record. A replay leaves it out: how long it took then says nothing now."""
    try:
        probe = canary.read_event(value)
    except msgspec.ValidationError as error:
        raise BadInput("bad_value", "type", f"a canary that no worker sent: {error}") from None
    return Reading([], [], probe=None if replay else probe)


def _quick(key: bytes | None, value: bytes, append_ms: int) -> Routed | None:
    """The common case in one pass: one event or purchase that decodes; None for everything else, good or bad.

    What decodes here would pass through `_read_head` and `_alone` to the same result.
    """
    if len(value) > RECORD_BYTES_MAX or may_be_deep(value):
        return None
    try:
        if not value.isascii():
            value.decode()
        wire = _alone_decoder.decode(value)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return None
    user = _user(wire.external_id, wire.device_id, key)
    if isinstance(wire, _AloneEvent):
        return Routed(user, track.to_custom_event(wire, append_ms, len(value)), 0)
    return Routed(user, track.to_purchase(wire, append_ms, len(value)), 0)


def _read_head(value: bytes) -> _Head:
    if len(value) > RECORD_BYTES_MAX:
        raise BadInput("too_large", "", f"{len(value)} bytes, at most {RECORD_BYTES_MAX}; split it")
    if not value.strip():
        raise BadInput("empty", "", "an empty record; send one JSON object")
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise BadInput("invalid_utf8", "", f"byte {error.start} is not UTF-8; encode text as UTF-8") from None
    head = track.decode_as(_head_decoder, value)
    if head.type is None and not (head.attributes or head.events or head.purchases):
        raise BadInput("empty", "", "no `type` and no attributes, events or purchases; send at least one object")
    return head


def _alone(head: _Head, key: bytes | None, value: bytes, append_ms: int) -> Routed:
    """The event of a record that is one object."""
    if head.type not in _TYPES:
        raise BadInput("unknown_type", "type", f"{head.type!r:.60} is not one of {', '.join(_TYPES)}")
    if head.type == "attributes":
        user = _owner_of_attributes(head, key)
        return Routed(user, track.attributes(value, append_ms, alone=True, anonymous=_is_anonymous(user)), 0)
    user = _user(head.external_id, head.device_id, key)
    if head.type == "event":
        return Routed(user, track.custom_event(value, append_ms), 0)
    if head.type == "purchase":
        return Routed(user, track.purchase(value, append_ms), 0)
    if head.type == UNBLOCK:
        return Routed(user, track.unblock(value, append_ms), 0)
    return Routed(user, track.session(value, append_ms, started=head.type == "session_start"), 0)


def _identify(head: _Head, key: bytes | None, append_ms: int) -> Identified:
    """Whose a device is."""
    if head.external_id is None or head.device_id is None:
        missing = "external_id" if head.external_id is None else "device_id"
        raise BadInput("missing_field", missing, "required; add it")
    known = _user(head.external_id, None, None)
    user = _user(None, head.device_id, key)
    return Identified(user, known, track.event_time(head.time, append_ms))


def _engagement(head: _Head, key: bytes | None, value: bytes, append_ms: int, keys: SigningKeys) -> Routed:
    """An engagement of the user whom its token names; a record that names another one is refused."""
    event = engagement_item.read_engagement(value, append_ms, keys)
    user = event.claims.user
    if head.external_id not in (None, user) or key not in (None, user.encode()):
        raise BadInput("key_mismatch", "external_id", "the record names another user than its token; leave it out")
    return Routed(user, event, 0)


def _read_body(head: _Head, key: bytes | None, append_ms: int) -> Reading:
    """The items of a track body, in Braze's order: attributes, events, purchases."""
    kinds = (head.attributes, head.events, head.purchases)
    parts = [(kind, data) for kind, items in enumerate(kinds) for data in items or ()]
    if len(parts) > ITEMS_MAX:
        detail = f"{len(parts)} objects, at most {ITEMS_MAX}; split it"
        return Reading([], [Rejected(0, "too_many_objects", "", detail, whole=True)])
    routed: list[Routed] = []
    rejected: list[Rejected] = []
    for item, (kind, data) in enumerate(parts):
        try:
            owner = track.decode_as(_owner_decoder, data)
            user = _user(owner.external_id, owner.device_id, key) if kind else _owner_of_attributes(owner, key)
            check_depth(bytes(data))
            routed.append(Routed(user, _of_kind(kind, data, append_ms, anonymous=_is_anonymous(user)), item))
        except BadInput as error:
            rejected.append(_rejected(item, error))
    return Reading(routed, rejected)


def _of_kind(kind: int, data: msgspec.Raw, append_ms: int, *, anonymous: bool) -> Event:
    if kind == 0:
        return track.attributes(data, append_ms, alone=False, anonymous=anonymous)
    if kind == 1:
        return track.custom_event(data, append_ms)
    return track.purchase(data, append_ms)


def _owner_of_attributes(owner: _Head | _Owner, key: bytes | None) -> str:
    """Whose attributes they are: beside an external id, and under a key that is one, `device_id` is an attribute."""
    names_known = key is not None and key != b"" and not key.startswith(DEVICE_PREFIX.encode())
    return _user(owner.external_id, None if names_known else owner.device_id, key)


def _is_anonymous(user: str) -> bool:
    return user.startswith(DEVICE_PREFIX)


def _user(external_id: str | None, device_id: JSONValue, key: bytes | None) -> str:
    """The user key of an item, which the record's key must not contradict: its external id, else its device."""
    if external_id is None:
        if device_id is not None:
            return _anonymous(device_id, key)
        if not key:
            raise BadInput("missing_user", "external_id", "no external_id and no key; add one")
        try:
            external_id = key.decode()
        except UnicodeDecodeError:
            raise BadInput("invalid_utf8", "key", "the key is not UTF-8; use the external id as key") from None
    encoded = external_id.encode()
    size = len(encoded)
    if not 0 < size <= track.EXTERNAL_ID_BYTES_MAX:
        raise BadInput(
            "missing_user" if not size else "bad_value",
            "external_id",
            f"{size} bytes; an external id has 1 to {track.EXTERNAL_ID_BYTES_MAX}",
        )
    if key is not None and key != encoded:
        raise BadInput("key_mismatch", "external_id", "the record's key names another user; make them equal")
    if external_id.startswith(DEVICE_PREFIX):
        detail = f"begins with {DEVICE_PREFIX!r}, as only keys of anonymous users do; send device_id instead"
        raise BadInput("bad_value", "external_id", detail)
    return external_id


def _anonymous(device_id: JSONValue, key: bytes | None) -> str:
    """The key of the anonymous user of a device."""
    if not isinstance(device_id, str):
        raise BadInput("wrong_type", "device_id", "Expected `str`, since it names the user")
    if _DEVICE_ID.fullmatch(device_id) is None:
        raise BadInput("bad_value", "device_id", "not 1 to 64 of A-Z a-z 0-9 . _ -; a UUID is a good one")
    user = device_key(device_id)
    if key is not None and key != user.encode():
        raise BadInput("key_mismatch", "device_id", f"the record's key is not {DEVICE_PREFIX} and the device_id")
    return user


def _rejected(item: int, error: BadInput, *, whole: bool = False) -> Rejected:
    return Rejected(item, error.reason, error.field, error.detail, whole)
