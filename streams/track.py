"""The objects of `/users/track`: from JSON to events, strictly, with errors that name the field."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from streams.codec import to_json
from streams.depth import DEPTH_MAX
from streams.errors import BadInput
from streams.events import Attributes, CustomEvent, JSONValue, Properties, Purchase, Session, Unblock
from streams.profiles.fields import STANDARD, TEXT_CHARS_MAX, check_length, check_standard
from streams.times import DAY_MS, parse_time

PROPERTIES_MAX: Final = 256
EVENT_PROPERTIES_BYTES_MAX: Final = 102_400
PURCHASE_PROPERTIES_BYTES_MAX: Final = 51_200
"""Of an object's properties as JSON; the same as in Braze."""

ATTRIBUTES_MAX: Final = 1_000
EXTERNAL_ID_BYTES_MAX: Final = 987
NAME_CHARS_MAX: Final = 255
QUANTITY_MAX: Final = 100
PRICE_MAX: Final = Decimal(10) ** 12
PRICE_DECIMALS_MAX: Final = 8
DURATION_S_MAX: Final = 366 * 86_400
_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**64 - 1
_CURRENCY: Final = re.compile(r"[A-Za-z]{3}")
_FIELD: Final = re.compile(r" - at `\$\.?(.*)`$")
_MISSING: Final = re.compile(r"missing required field `(\w+)`")

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class EventObject(msgspec.Struct, gc=False):
    """A custom event as it is sent, its types checked and nothing else."""

    name: _Name
    time: str | None = None
    properties: dict[str, Any] | None = None
    id: _Id | None = None


class PurchaseObject(msgspec.Struct, gc=False):
    """A purchase as it is sent, its types checked and nothing else."""

    product_id: _Name
    currency: str
    price: Decimal
    quantity: Annotated[int, msgspec.Meta(ge=1, le=QUANTITY_MAX)] = 1
    time: str | None = None
    properties: dict[str, Any] | None = None
    id: _Id | None = None


class _SessionObject(msgspec.Struct):
    time: str | None = None
    app_id: str | None = None
    session_id: str | None = None
    id: _Id | None = None
    duration_s: Annotated[float, msgspec.Meta(ge=0, le=DURATION_S_MAX)] | None = None


class _UnblockObject(msgspec.Struct):
    why: Literal["hard_bounced", "marked_as_spam"]
    time: str | None = None
    id: _Id | None = None


_Shape = TypeVar("_Shape")
_event_decoder: Final = msgspec.json.Decoder(EventObject)
_purchase_decoder: Final = msgspec.json.Decoder(PurchaseObject)
_session_decoder: Final = msgspec.json.Decoder(_SessionObject)
_unblock_decoder: Final = msgspec.json.Decoder(_UnblockObject)
_object_decoder: Final = msgspec.json.Decoder(dict[str, Any])
_NOT_ATTRIBUTES: Final = frozenset({"external_id", "_update_existing_only"})
_NOT_ATTRIBUTES_ALONE: Final = _NOT_ATTRIBUTES | {"type", "id", "time"}
_UNSUPPORTED_ATTRIBUTES: Final = frozenset(
    {"braze_id", "user_alias", "push_token_import", "push_tokens", "subscription_groups", "_merge_objects"}
)


def decode_as(decoder: "msgspec.json.Decoder[_Shape]", data: bytes | msgspec.Raw) -> _Shape:
    """Decode JSON into the decoder's type.

    Raises:
        BadInput: `invalid_utf8`, `too_deep`, `wrong_type`, `missing_field` or `not_json`, with the path.
    """
    try:
        return decoder.decode(data)
    except RecursionError:
        raise BadInput("too_deep", "", f"nested deeper than {DEPTH_MAX} levels; flatten it") from None
    except UnicodeDecodeError as error:
        raise BadInput("invalid_utf8", "", f"not UTF-8: {error.reason}; encode text as UTF-8") from None
    except msgspec.ValidationError as error:
        raise _from_validation(str(error)) from None
    except msgspec.DecodeError as error:
        raise BadInput("not_json", "", f"{error}; send one JSON object") from None


def _from_validation(text: str) -> BadInput:
    """Say in our words what msgspec found, and where."""
    missing = _MISSING.search(text)
    if missing is not None:
        return BadInput("missing_field", missing[1], "required; add it")
    at = _FIELD.search(text)
    return BadInput("wrong_type", at[1] if at else "", _FIELD.sub("", text))


def custom_event(data: bytes | msgspec.Raw, append_ms: int) -> CustomEvent:
    """The custom event in an event object. Raises BadInput."""
    return to_custom_event(decode_as(_event_decoder, data), append_ms, memoryview(data).nbytes)


def to_custom_event(wire: EventObject, append_ms: int, size: int) -> CustomEvent:
    """The custom event of a decoded object, which was so many bytes of JSON. Raises BadInput."""
    properties = _properties(wire.properties, size, EVENT_PROPERTIES_BYTES_MAX)
    return CustomEvent(wire.name, event_time(wire.time, append_ms), properties, wire.id)


def purchase(data: bytes | msgspec.Raw, append_ms: int) -> Purchase:
    """The purchase in a purchase object. Raises BadInput."""
    return to_purchase(decode_as(_purchase_decoder, data), append_ms, memoryview(data).nbytes)


def to_purchase(wire: PurchaseObject, append_ms: int, size: int) -> Purchase:
    """The purchase of a decoded object of so many bytes; price and quantity are bounded. Raises BadInput."""
    if _CURRENCY.fullmatch(wire.currency) is None:
        raise BadInput("bad_value", "currency", f"{wire.currency[:20]!r} is not an ISO 4217 code such as USD")
    _check_price(wire.price)
    return Purchase(
        wire.product_id,
        wire.currency.upper(),
        wire.price,
        wire.quantity,
        event_time(wire.time, append_ms),
        _properties(wire.properties, size, PURCHASE_PROPERTIES_BYTES_MAX),
        wire.id,
    )


def _check_price(price: Decimal) -> None:
    if not price.is_finite():
        raise BadInput("bad_value", "price", f"{price} is not a finite number")
    exponent = price.as_tuple().exponent
    assert isinstance(exponent, int)
    # The exponent first, and no arithmetic: that rounds, and raises for a number such as 1e1000000.
    if exponent < -PRICE_DECIMALS_MAX or price.adjusted() > PRICE_MAX.adjusted() or price.copy_abs() > PRICE_MAX:
        raise BadInput(
            "bad_value",
            "price",
            f"beyond ±{PRICE_MAX:.0f} or finer than {PRICE_DECIMALS_MAX} decimals; send the price in units",
        )


def session(data: bytes | msgspec.Raw, append_ms: int, *, started: bool) -> Session:
    """The session start or end in an object. Raises BadInput."""
    wire = decode_as(_session_decoder, data)
    duration_s = None if started else wire.duration_s
    return Session(started, event_time(wire.time, append_ms), wire.app_id, wire.session_id, wire.id, duration_s)


def attributes(data: bytes | msgspec.Raw, append_ms: int, *, alone: bool, anonymous: bool) -> Attributes:
    """The profile fields in an attributes object. Raises BadInput.

    An object that stands alone in a record has its `type`, `id` and `time` taken out; inside a track body those
    are names of custom attributes like any other. `device_id` is one too, but in an object of an anonymous user,
    whom it names.
    """
    wire = decode_as(_object_decoder, data)
    not_attributes = _NOT_ATTRIBUTES_ALONE if alone else _NOT_ATTRIBUTES
    values = {name: value for name, value in wire.items() if name not in not_attributes}
    if anonymous:
        values.pop("device_id", None)
    if len(values) > ATTRIBUTES_MAX:
        raise BadInput("too_many_attributes", "", f"{len(values)} attributes, at most {ATTRIBUTES_MAX}; split it")
    for name, value in values.items():
        _check_attribute(name, value)
    event_id = wire.get("id") if alone else None
    if event_id is not None and not isinstance(event_id, str):
        raise BadInput("wrong_type", "id", "Expected `str`")
    time = wire.get("time") if alone else None
    if time is not None and not isinstance(time, str):
        raise BadInput("wrong_type", "time", "Expected `str`")
    return Attributes(values, event_time(time, append_ms), event_id)


def unblock(data: bytes | msgspec.Raw, append_ms: int) -> Unblock:
    """What an operator lets go again. Raises BadInput."""
    wire = decode_as(_unblock_decoder, data)
    return Unblock(wire.why, event_time(wire.time, append_ms), wire.id)


def _check_attribute(name: str, value: JSONValue) -> None:
    if name in _UNSUPPORTED_ATTRIBUTES:
        raise BadInput("unsupported_attribute", name, "not supported yet; leave it out")
    if not 0 < len(name) <= NAME_CHARS_MAX:
        raise BadInput("bad_value", name[:40], f"an attribute's name has 1 to {NAME_CHARS_MAX} characters")
    if isinstance(value, (list, dict)):
        raise BadInput("unsupported_attribute", name, "only text, numbers, booleans and null; no array or object yet")
    if type(value) is int and not _INT_MIN <= value <= _INT_MAX:
        raise BadInput("bad_value", name, "an integer beyond 64 bits; send it as text")
    if type(value) is str and len(value) > TEXT_CHARS_MAX:
        check_length(name, value)
    if name in STANDARD:
        check_standard(name, value)


def _properties(properties: dict[str, Any] | None, size: int, bytes_max: int) -> Properties:
    """Check count, depth, integers and bytes of the properties of an object; a small one has no large properties."""
    if not properties:
        return {}
    if len(properties) > PROPERTIES_MAX:
        raise BadInput("too_many_properties", "properties", f"{len(properties)} properties, at most {PROPERTIES_MAX}")
    _check_values(properties.values(), 2)
    if size > bytes_max and (found := len(to_json(properties))) > bytes_max:
        raise BadInput("too_large", "properties", f"{found} bytes of JSON, at most {bytes_max}; send less of it")
    return properties


def _check_values(values: Iterable[JSONValue], depth: int) -> None:
    """Check the integers and the depth of values that lie at a depth."""
    for value in values:
        kind = type(value)
        if kind is int:
            if not _INT_MIN <= value <= _INT_MAX:
                raise BadInput("bad_value", "properties", "an integer beyond 64 bits; send it as text")
        elif kind is dict or kind is list:
            if depth >= DEPTH_MAX:
                raise BadInput("too_deep", "properties", f"nested deeper than {DEPTH_MAX} levels; flatten it")
            _check_values(value.values() if kind is dict else value, depth + 1)


def event_time(text: str | None, append_ms: int) -> int:
    """The object's time: absent or up to a day ahead means now, further ahead is refused."""
    if text is None:
        return append_ms
    try:
        time_ms = parse_time(text)
    except (ValueError, OverflowError):
        raise BadInput("bad_value", "time", f"{text[:40]!r} is not ISO 8601 such as 2026-01-31T12:00:00Z") from None
    if time_ms <= append_ms:
        return time_ms
    if time_ms > append_ms + DAY_MS:
        raise BadInput("time_in_future", "time", f"{text[:40]} lies more than 24 h ahead; check the clock or the unit")
    return append_ms
