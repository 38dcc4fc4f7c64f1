"""Export files have the schemas, names and sizes that their readers count on."""

from itertools import pairwise

import pytest
from fastavro import parse_schema
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadState
from streams.exports import AGE_MAX_MS, BYTES_MAX, ROWS_MAX, SCHEMAS, Batch, object_name, row

SENDS = "users.messages.email.Send"
FIELD_COUNTS = {
    "users.UserOrphan": 8,
    "users.behaviors.CustomEvent": 16,
    "users.behaviors.Purchase": 17,
    "users.behaviors.app.FirstSession": 16,
    "users.behaviors.app.SessionEnd": 12,
    "users.behaviors.app.SessionStart": 11,
    "users.behaviors.subscription.GlobalStateChange": 22,
    "users.campaigns.Conversion": 14,
    "users.campaigns.EnrollInControl": 12,
    "users.messages.email.Abort": 24,
    "users.messages.email.Bounce": 25,
    "users.messages.email.Click": 34,
    "users.messages.email.Deferral": 27,
    "users.messages.email.Delivery": 23,
    "users.messages.email.MarkAsSpam": 23,
    "users.messages.email.Open": 30,
    "users.messages.email.Retry": 27,
    "users.messages.email.Send": 22,
    "users.messages.email.SoftBounce": 24,
    "users.messages.email.Unsubscribe": 20,
    "users.messages.webhook.Abort": 22,
    "users.messages.webhook.Failure": 28,
    "users.messages.webhook.Retry": 25,
    "users.messages.webhook.Send": 19,
}
REQUIRED = {
    "users.UserOrphan": {"orphaned_by_id"},
    "users.behaviors.CustomEvent": {"name", "properties"},
    "users.behaviors.Purchase": {"product_id", "price", "currency", "properties"},
    "users.behaviors.app.FirstSession": {"app_id", "session_id"},
    "users.behaviors.app.SessionEnd": {"app_id", "session_id"},
    "users.behaviors.app.SessionStart": {"app_id", "session_id"},
    "users.behaviors.subscription.GlobalStateChange": {"subscription_status"},
    "users.campaigns.Conversion": {"campaign_id"},
    "users.campaigns.EnrollInControl": {"campaign_id"},
    "users.messages.email.Abort": {"email_address"},
    "users.messages.email.Bounce": {"email_address"},
    "users.messages.email.Click": {"email_address"},
    "users.messages.email.Deferral": {"email_address"},
    "users.messages.email.Delivery": {"email_address"},
    "users.messages.email.MarkAsSpam": {"email_address"},
    "users.messages.email.Open": {"email_address"},
    "users.messages.email.Retry": {"email_address"},
    "users.messages.email.Send": {"email_address"},
    "users.messages.email.SoftBounce": {"email_address"},
    "users.messages.email.Unsubscribe": {"email_address"},
}
TYPES: dict[str, object] = {
    "attempt_count": "int",
    "ad_tracking_enabled": "boolean",
    "content_length": "int",
    "conversion_behavior_index": "int",
    "duration": "float",
    "http_status_code": "int",
    "is_amp": "boolean",
    "is_drop": "boolean",
    "is_suspected_bot_click": "boolean",
    "is_terminal": "boolean",
    "price": "float",
    "retry_count": "int",
    "suspected_bot_click_reason": {"type": "array", "items": "string"},
    "time": "int",
    "webhook_duration": "int",
}


def fields_of(event_type: str) -> dict[str, dict[str, object]]:
    """The fields of a schema by name, as the Avro library understands it."""
    parsed = parse_schema(SCHEMAS[event_type])
    assert isinstance(parsed, dict)
    return {field["name"]: field for field in parsed["fields"]}


def test_every_type_is_there() -> None:
    """Exactly the event types that we can write have a schema, each with all of its published fields."""
    assert {event_type: len(fields_of(event_type)) for event_type in SCHEMAS} == FIELD_COUNTS


@pytest.mark.parametrize("event_type", FIELD_COUNTS)
def test_schema(event_type: str) -> None:
    """A schema parses, is named as Braze names it, and only its required fields refuse null."""
    parsed = parse_schema(SCHEMAS[event_type])
    assert isinstance(parsed, dict)
    assert parsed["name"] == f"dataexport.S3.inner.{event_type}"
    fields = fields_of(event_type)
    required = {"id", "user_id", "time"} | REQUIRED.get(event_type, set())
    for name, field in fields.items():
        kind = TYPES.get(name, "string")
        if name in required:
            assert field == {"name": name, "type": kind}
        else:
            assert field == {"name": name, "type": ["null", kind], "default": None}
    assert required <= set(fields)


def test_webhook_failure_names_what_failed() -> None:
    """A schema that is spelled out here by hand has just these fields."""
    assert set(fields_of("users.messages.webhook.Failure")) == {
        *("id", "user_id", "external_user_id", "time", "app_group_id"),
        *("campaign_id", "campaign_name", "message_variation_id", "message_variation_name"),
        *("canvas_id", "canvas_name", "canvas_variation_id", "canvas_variation_name", "canvas_step_id"),
        *("canvas_step_name", "canvas_step_message_variation_id", "dispatch_id", "send_id"),
        *("http_status_code", "endpoint_url", "content_length", "host", "raw_response", "retry_count"),
        *("url_path", "webhook_duration", "webhook_failure_source", "is_terminal"),
    }


def test_object_name() -> None:
    """A file's path names its type, the hour of its first record, the partition and the first offset."""
    assert object_name(SENDS, 1_767_225_599_999, 7, 123, "shop.eu") == (
        "event_type=users.messages.email.Send/date=2025-12-31-23/dataexport.shop.eu+7+00000000000000000123.avro"
    )


@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=9, unique=True).map(sorted))
def test_names_sort_like_offsets(offsets: list[int]) -> None:
    """The names of one hour and partition sort as their first offsets do."""
    names = [object_name(SENDS, 0, 1, offset, "headrace") for offset in offsets]
    assert all(one < other for one, other in pairwise(names))


@pytest.mark.parametrize(
    ("event_type", "partition", "offset", "app"),
    [
        ("../../etc/passwd", 0, 0, "headrace"),
        ("users.messages.email.Unheard", 0, 0, "headrace"),
        (SENDS, -1, 0, "headrace"),
        (SENDS, 0, -1, "headrace"),
        (SENDS, 0, 0, "../headrace"),
        (SENDS, 0, 0, "head+race"),
        (SENDS, 0, 0, "headrace\n"),
        (SENDS, 0, 0, ""),
    ],
)
def test_no_name_leaves_the_folder(event_type: str, partition: int, offset: int, app: str) -> None:
    """What no topic of ours can hold is refused before it could become a path."""
    with pytest.raises(BadState):
        object_name(event_type, 0, partition, offset, app)


@pytest.mark.parametrize(
    ("time_ms", "time_s"),
    [
        (1_999, 1),
        (-1, -1),
        (2**31 * 1000 - 1, 2**31 - 1),
        (2**31 * 1000, 2**31 - 1),
        (-(2**31) * 1000 - 1, -(2**31)),
    ],
)
def test_row_time(time_ms: int, time_s: int) -> None:
    """A row carries whole seconds, rounded down, within the 32 bits of the schema."""
    fields = {"id": "x"}
    assert row(fields, time_ms) == {"id": "x", "time": time_s}
    assert fields == {"id": "x"}


def full(rows: int) -> Batch:
    """A batch of so many records of 10 bytes at every other offset from 100, the first appended at 1,000."""
    batch = Batch.of(SENDS, 3, 100, 1_000, 10)
    for index in range(1, rows):
        batch = batch.with_record(100 + 2 * index, 10)
    return batch


def test_batch_counts() -> None:
    """A batch knows its span of offsets, its rows and its bytes."""
    assert full(3) == Batch(SENDS, 3, 100, 104, 1_000, 3, 30)


def test_batch_is_due_by_rows() -> None:
    """A batch is due with its 15,000th row and not with the one before."""
    batch = full(ROWS_MAX - 1)
    assert not batch.is_due(1_000)
    assert batch.with_record(10**6, 1).is_due(1_000)


def test_batch_is_due_by_age() -> None:
    """A batch is due five minutes after the append of its first record and not a millisecond before."""
    assert not full(2).is_due(1_000 + AGE_MAX_MS - 1)
    assert full(2).is_due(1_000 + AGE_MAX_MS)


def test_batch_is_due_by_bytes() -> None:
    """A batch is due when its records fill the memory that it may take, and not a byte before."""
    assert not full(1).with_record(101, BYTES_MAX - 11).is_due(1_000)
    assert full(1).with_record(101, BYTES_MAX - 10).is_due(1_000)


@pytest.mark.parametrize("offset", [104, 103])
def test_batch_refuses_to_go_back(offset: int) -> None:
    """An offset that is not behind the last one shows that our own order is broken, so it raises."""
    with pytest.raises(BadState):
        full(3).with_record(offset, 1)
