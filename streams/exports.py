"""Exports as values: schemas, the JSON of the topic, and the names, rows and sizes of files."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from streams.effects import CurrentsRecord
from streams.errors import BadState
from streams.events import JSONValue
from streams.records import Headers
from streams.times import SECOND_MS, hour_of

ROWS_MAX: Final = 15_000
AGE_MAX_MS: Final = 300_000
BYTES_MAX: Final = 8 * 1_024 * 1_024
"""Of record values in one file: bounds the memory of a batch, and what one block may hold."""

Schema: TypeAlias = dict[str, JSONValue]
Row: TypeAlias = dict[str, JSONValue]

EVENT_TYPE: Final = "event_type"
"""The header, and the field of the topic's value, that name the event type."""

ID: Final = "id"

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode  # a record's fields have an order already
_decode: Final = msgspec.json.Decoder(dict[str, JSONValue]).decode
_NAMESPACE: Final = "dataexport.S3.inner"
_APP: Final = re.compile(r"[A-Za-z0-9._-]+")
_FILE: Final = re.compile(r"event_type=([A-Za-z.]+)/date=[0-9-]+/dataexport\.([A-Za-z0-9._-]+)\+(\d+)\+(\d+)\.avro")
_TIME_MIN_S: Final = -(2**31)
_TIME_MAX_S: Final = 2**31 - 1

# Below, `name` is a string, `name:type` another type, and a `?` behind it makes the field nullable.
_GROUPS: Final = {
    "ID": "id user_id external_user_id? time:int app_group_id?",
    "CMP": "campaign_id? campaign_name? message_variation_id? message_variation_name?",
    "CNV": "canvas_id? canvas_name? canvas_variation_id? canvas_variation_name? canvas_step_id? canvas_step_name?",
    "SND": "dispatch_id? send_id?",
    "DEV": "platform? os_version? device_model? device_id?",
    "ADV": "ad_id? ad_id_type? ad_tracking_enabled:boolean?",
    "GEO": "gender? country? language?",
    "ABT": "abort_type? abort_log?",
    "RTY": "retry_type? retry_log?",
    "MAIL": "email_address ip_pool? from_domain? esp?",
}
_FIELDS: Final = {
    "users.UserOrphan": "ID device_id? app_id? orphaned_by_id",
    "users.behaviors.CustomEvent": "ID DEV ADV app_id? timezone? name properties",
    "users.behaviors.Purchase": "ID DEV ADV app_id? product_id price:float currency properties",
    "users.behaviors.app.FirstSession": "ID DEV GEO app_id session_id timezone? sdk_version?",
    "users.behaviors.app.SessionEnd": "ID DEV app_id duration:float? session_id",
    "users.behaviors.app.SessionStart": "ID DEV app_id session_id",
    "users.behaviors.subscription.GlobalStateChange": "ID CNV email_address? state_change_source? "
    "subscription_status channel? timezone? app_id? campaign_id? campaign_name? message_variation_id? send_id? "
    "channel_identifier?",
    "users.campaigns.Conversion": "ID app_id? timezone? campaign_id campaign_name? message_variation_id? "
    "message_variation_name? send_id? conversion_behavior_index:int? conversion_behavior?",
    "users.campaigns.EnrollInControl": "ID app_id? timezone? campaign_id campaign_name? message_variation_id? "
    "message_variation_name? send_id?",
    "users.messages.email.Abort": "ID CMP CNV SND ABT canvas_step_message_variation_id? device_id? "
    "email_address ip_pool? timezone?",
    "users.messages.email.Bounce": "ID CMP CNV SND MAIL timezone? sending_ip? bounce_reason? is_drop:boolean?",
    "users.messages.email.Click": "ID CMP CNV SND MAIL timezone? url? user_agent? link_id? link_alias? "
    "is_amp:boolean? device_class? device_os? device_model? browser? mailbox_provider? "
    "is_suspected_bot_click:boolean? suspected_bot_click_reason:string[]?",
    "users.messages.email.Deferral": "ID CMP CNV SND MAIL canvas_step_message_variation_id? recipient_domain? "
    "sending_ip? timezone? deferral_reason? attempt_count:int?",
    "users.messages.email.Delivery": "ID CMP CNV SND MAIL timezone? sending_ip?",
    "users.messages.email.MarkAsSpam": "ID CMP CNV SND MAIL timezone? user_agent?",
    "users.messages.email.Open": "ID CMP CNV SND MAIL timezone? user_agent? machine_open? is_amp:boolean? "
    "device_class? device_os? device_model? browser? mailbox_provider?",
    "users.messages.email.Retry": "ID CMP CNV SND GEO RTY canvas_step_message_variation_id? timezone? "
    "email_address ip_pool? device_id?",
    "users.messages.email.Send": "ID CMP CNV SND timezone? email_address ip_pool? message_extras? from_domain?",
    "users.messages.email.SoftBounce": "ID CMP CNV SND MAIL timezone? sending_ip? bounce_reason?",
    "users.messages.email.Unsubscribe": "ID CMP CNV SND timezone? email_address ip_pool?",
    "users.messages.webhook.Abort": "ID CMP CNV SND ABT canvas_step_message_variation_id? device_id? timezone?",
    "users.messages.webhook.Failure": "ID CMP CNV SND http_status_code:int? endpoint_url? "
    "canvas_step_message_variation_id? content_length:int? host? raw_response? retry_count:int? url_path? "
    "webhook_duration:int? webhook_failure_source? is_terminal:boolean?",
    "users.messages.webhook.Retry": "ID CMP CNV SND GEO RTY device_id? canvas_step_message_variation_id? timezone?",
    "users.messages.webhook.Send": "ID CMP CNV SND timezone? message_extras?",
}


def _field(text: str) -> JSONValue:
    name, _, kind = text.removesuffix("?").partition(":")
    if kind.endswith("[]"):
        return {"name": name, "type": ["null", {"type": "array", "items": kind[:-2]}], "default": None}
    if text.endswith("?"):
        return {"name": name, "type": ["null", kind or "string"], "default": None}
    return {"name": name, "type": kind or "string"}


def _schema(event_type: str, fields: str) -> Schema:
    folder, _, name = event_type.rpartition(".")
    words = (word for part in fields.split() for word in _GROUPS.get(part, part).split())
    return {
        "type": "record",
        "name": name,
        "namespace": f"{_NAMESPACE}.{folder}",
        "fields": [_field(word) for word in words],
    }


SCHEMAS: Final[Mapping[str, Schema]] = MappingProxyType(
    {event_type: _schema(event_type, fields) for event_type, fields in _FIELDS.items()}
)
"""The Avro schema of each event type that is exported."""


def object_name(event_type: str, first_time_ms: int, partition: int, first_offset: int, app: str) -> str:
    """The path of a file below the exports folder, from what its first record is; safe to join to it.

    >>> object_name("users.behaviors.Purchase", 0, 3, 41, "headrace")
    'event_type=users.behaviors.Purchase/date=1970-01-01-00/dataexport.headrace+3+00000000000000000041.avro'

    Raises:
        BadState: no schema has that event type, an app's name or a number that no topic can have.
    """
    if event_type not in SCHEMAS:
        raise BadState(f"event type {event_type!r} has no export schema; see streams/exports.py")
    if not _APP.fullmatch(app) or partition < 0 or first_offset < 0:
        raise BadState(f"no export file can be named after {app!r}, {partition} and {first_offset}")
    folder = f"event_type={event_type}/date={hour_of(first_time_ms)}"
    return f"{folder}/dataexport.{app}+{partition}+{first_offset:020d}.avro"


def place_of_file(path: str, app: str) -> tuple[str, int, int] | None:
    """Event type, partition and first offset of what `object_name` gave; None for any other path.

    >>> place_of_file(object_name("users.behaviors.Purchase", 0, 3, 41, "headrace"), "headrace")
    ('users.behaviors.Purchase', 3, 41)
    """
    found = _FILE.fullmatch(path)
    return (found[1], int(found[3]), int(found[4])) if found and found[2] == app else None


def topic_value(record: CurrentsRecord) -> bytes:
    """The JSON of a record in the currents topic: one flat object, its keys those of the schema and `event_type`.

    >>> topic_value(CurrentsRecord("users.behaviors.Purchase", 1_999, {"id": "x"}))
    b'{"id":"x","time":1,"event_type":"users.behaviors.Purchase"}'
    """
    value = row(record.fields, record.time_ms)
    value[EVENT_TYPE] = record.event_type
    return _encode(value)


def topic_headers(record: CurrentsRecord) -> Headers:
    """What a consumer can route and deduplicate by without reading the value."""
    return ((EVENT_TYPE, record.event_type.encode()), (ID, str(record.fields[ID]).encode()))


def decode_row(value: bytes) -> Row:
    """The row in a value of the currents topic, `event_type` among its fields; a failure is our defect and raises."""
    found: Row = _decode(value)
    return found


def event_type_of(headers: Headers, value: bytes) -> str:
    """The event type of a record of the currents topic, from its headers, else from its value."""
    for name, text in headers:
        if name == EVENT_TYPE:
            return text.decode()
    return str(decode_row(value)[EVENT_TYPE])


def row(fields: Mapping[str, JSONValue], time_ms: int) -> Row:
    """A record's fields and its time in whole seconds, as its Avro schema wants them.

    A second that 32 bits cannot hold (before 1901-12-13, after 2038-01-19) becomes the nearest that they
    can: the schema that readers know says `int`.
    """
    return {**fields, "time": max(_TIME_MIN_S, min(time_ms // SECOND_MS, _TIME_MAX_S))}


class Batch(msgspec.Struct, frozen=True):
    """What is known of the records that will make up one file, of one event type and partition.

    Offsets within a partition rise, with holes: other event types lie between them.
    """

    event_type: str
    partition: int
    first_offset: int
    last_offset: int
    first_append_ms: int
    rows: int
    size_bytes: int

    @classmethod
    def of(cls, event_type: str, partition: int, offset: int, append_ms: int, size_bytes: int) -> "Batch":
        """A batch of one record, appended at `append_ms`, whose value has `size_bytes`."""
        return cls(event_type, partition, offset, offset, append_ms, 1, size_bytes)

    def with_record(self, offset: int, size_bytes: int) -> "Batch":
        """This batch and one record more.

        Raises:
            BadState: the offset does not lie behind the last one.
        """
        if offset <= self.last_offset:
            raise BadState(f"export of {self.event_type}: offset {offset} after {self.last_offset}")
        return Batch(
            self.event_type,
            self.partition,
            self.first_offset,
            offset,
            self.first_append_ms,
            self.rows + 1,
            self.size_bytes + size_bytes,
        )

    def is_due(self, now_ms: int) -> bool:
        """Whether the file is to be written now: it is full, or its first record is old enough."""
        return self.rows >= ROWS_MAX or self.size_bytes >= BYTES_MAX or now_ms - self.first_append_ms >= AGE_MAX_MS
