"""Behaviours and outcomes become the records that readers of Braze's exports know."""

import json
import re
from decimal import Decimal
from io import BytesIO

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from streams.currents import custom_event, message, purchases, sessions
from streams.effects import CurrentsRecord
from streams.events import CustomEvent, JSONValue, Purchase, Session
from streams.exports import SCHEMAS, decode_row, event_type_of, row, topic_headers, topic_value
from streams.ids import currents_id, definition_api_id, user_id
from streams.ingest.raw_record import read_record
from streams.mailbox import Cause, Outcome, OutcomeKind

CAUSE = Cause("00112233aabbccdd", 3, 17, 2)
DISPATCH = "ab" * 16
NOW_MS = 1_760_000_000_999

texts = st.text(max_size=8)
properties = st.dictionaries(texts, texts | st.integers(-(2**53), 2**53) | st.booleans() | st.none(), max_size=3)
times_ms = st.integers(-62_135_596_800_000, 253_402_300_799_999)
causes = st.builds(Cause, texts, st.integers(0, 9), st.integers(0, 2**53), st.integers(0, 75))


def told(kind: OutcomeKind, reason: str = "", channel: str = "email") -> CurrentsRecord | None:
    """The record of an outcome of dispatch DISPATCH of the campaign win_back."""
    outcome = Outcome(DISPATCH, 2, kind, NOW_MS, reason, "a@example.com")
    return message("u1", campaign="win_back", channel=channel, dispatch_id=DISPATCH, outcome=outcome)


def test_custom_event_fields() -> None:
    """A custom event carries exactly its ids, its name and its properties as a JSON text."""
    record = custom_event("u1", CustomEvent("viewed", NOW_MS, {"b": [1, 2.5, None], "a": "é"}), CAUSE)
    assert record.event_type == "users.behaviors.CustomEvent"
    assert record.time_ms == NOW_MS
    assert record.fields == {
        "id": currents_id("00112233aabbccdd/3/17/2/0"),
        "user_id": user_id("u1"),
        "external_user_id": "u1",
        "name": "viewed",
        "properties": '{"a":"é","b":[1,2.5,null]}',
    }


def test_ids_look_as_readers_expect() -> None:
    """The record's id has the shape of a UUID and the user's id has 24 hex digits."""
    fields = custom_event("u1", CustomEvent("viewed", NOW_MS, {}), CAUSE).fields
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", str(fields["id"]))
    assert re.fullmatch(r"[0-9a-f]{24}", str(fields["user_id"]))


few = st.sampled_from([0, 1, 11])
near_causes = st.builds(Cause, st.sampled_from(["aa", "ab"]), few, few, few)


@given(st.lists(near_causes, min_size=2, max_size=2, unique=True), times_ms)
def test_id_follows_the_cause_alone(pair: list[Cause], time_ms: int) -> None:
    """The same cause gives the same id whatever else is said, and another cause another id."""
    one, other = pair
    event = CustomEvent("viewed", time_ms, {})
    first = custom_event("u1", event, one).fields["id"]
    assert first == custom_event("u2", CustomEvent("bought", 0, {"a": 1}), one).fields["id"]
    assert first != custom_event("u1", event, other).fields["id"]


@given(st.integers(1, 100))
def test_purchases_count_units(quantity: int) -> None:
    """A purchase of n units is n records with ids of their own, each at the price of one unit."""
    purchase = Purchase("p1", "EUR", Decimal("19.99"), quantity, NOW_MS, {"size": "L"})
    records = purchases("u1", purchase, CAUSE)
    assert len(records) == quantity
    assert len({record.fields["id"] for record in records}) == quantity
    for record in records:
        assert record.event_type == "users.behaviors.Purchase"
        assert record.time_ms == NOW_MS
        assert {key: value for key, value in record.fields.items() if key != "id"} == {
            "user_id": user_id("u1"),
            "external_user_id": "u1",
            "product_id": "p1",
            "price": 19.99,
            "currency": "EUR",
            "properties": '{"size":"L"}',
        }


@pytest.mark.parametrize("price", ["1E+400", "-1E+400", "1E+300"])
def test_price_beyond_the_schema(price: str) -> None:
    """A price that 32 bits cannot hold becomes the largest that they can, so no file is held up by it."""
    record = purchases("u1", Purchase("p1", "EUR", Decimal(price), 1, NOW_MS, {}), CAUSE)[0]
    kept = decode_row(topic_value(record))["price"]
    assert isinstance(kept, float)
    assert abs(kept) == 3.4028234663852886e38
    assert (kept < 0) == price.startswith("-")


@pytest.mark.parametrize(
    ("event", "kind", "app_id", "session_id"),
    [
        (Session(started=True, time_ms=NOW_MS, app_id="web", session_id="s1"), "SessionStart", "web", "s1"),
        (Session(started=False, time_ms=NOW_MS, app_id="web", session_id="s1"), "SessionEnd", "web", "s1"),
        (Session(started=True, time_ms=NOW_MS), "SessionStart", "", ""),
    ],
)
def test_session(event: Session, kind: str, app_id: str, session_id: str) -> None:
    """A session's start and end have types of their own, and ids that nobody gave are empty, not null."""
    (record,) = sessions("u1", event, CAUSE, {}, is_first=False)
    assert record.event_type == f"users.behaviors.app.{kind}"
    assert record.time_ms == NOW_MS
    assert record.fields["app_id"] == app_id
    assert record.fields["session_id"] == session_id
    assert "duration" not in record.fields


def test_a_session_s_end_says_how_long_it_was() -> None:
    """The duration that the end tells is exported, in seconds; a start has none whatever it says."""
    end = b'{"type":"session_end","external_id":"u1","session_id":"s1","duration_s":61.5}'
    told = read_record(None, end, NOW_MS).routed[0].event
    assert isinstance(told, Session)
    (record,) = sessions("u1", told, CAUSE, {}, is_first=False)
    assert record.fields["duration"] == 61.5
    begun = read_record(None, end.replace(b"_end", b"_start"), NOW_MS).routed[0].event
    assert isinstance(begun, Session)
    assert begun.duration_s is None


def test_first_session() -> None:
    """A user's first start is told twice, under ids of their own; the first session says who the user is."""
    start = Session(started=True, time_ms=NOW_MS, app_id="web", session_id="s1")
    attributes: dict[str, JSONValue] = {"gender": "F", "country": None, "time_zone": "Europe/Rome", "email": "a@b.c"}
    usual, first = sessions("u1", start, CAUSE, attributes, is_first=True)
    assert [usual] == sessions("u1", start, CAUSE, attributes, is_first=False)
    assert first.event_type == "users.behaviors.app.FirstSession"
    assert first.time_ms == NOW_MS
    assert first.fields == {
        **usual.fields,
        "id": currents_id("00112233aabbccdd/3/17/2/1"),
        "gender": "F",
        "timezone": "Europe/Rome",
    }


def test_an_end_is_never_a_first_session() -> None:
    """The end of a session whose start nobody sent is only an end."""
    end = Session(started=False, time_ms=NOW_MS)
    assert [one.event_type for one in sessions("u1", end, CAUSE, {}, is_first=True)] == [
        "users.behaviors.app.SessionEnd"
    ]


@pytest.mark.parametrize(
    ("channel", "kind", "reason", "event_type", "details"),
    [
        ("email", "sent", "", "users.messages.email.Send", {}),
        ("email", "aborted", "", "users.messages.email.Abort", {"abort_type": "aborted"}),
        (
            "email",
            "aborted",
            "liquid_abort: no coupon",
            "users.messages.email.Abort",
            {"abort_type": "liquid_abort", "abort_log": "liquid_abort: no coupon"},
        ),
        (
            "email",
            "failed",
            "550 5.1.1 no such user",
            "users.messages.email.Bounce",
            {"bounce_reason": "550 5.1.1 no such user"},
        ),
        (
            "email",
            "failed",
            "535 5.7.8 login refused",
            "users.messages.email.Abort",
            {"abort_type": "failed", "abort_log": "535 5.7.8 login refused"},
        ),
        (
            "email",
            "failed",
            "retries_exhausted: 421 later: 550 in the text is no reply",
            "users.messages.email.SoftBounce",
            {"bounce_reason": "421 later: 550 in the text is no reply"},
        ),
        ("webhook", "sent", "", "users.messages.webhook.Send", {}),
        (
            "webhook",
            "aborted",
            "paused",
            "users.messages.webhook.Abort",
            {"abort_type": "paused", "abort_log": "paused"},
        ),
        (
            "email",
            "retry",
            "421 4.7.0 later",
            "users.messages.email.Retry",
            {"retry_type": "421", "retry_log": "421 4.7.0 later"},
        ),
        ("webhook", "retry", "", "users.messages.webhook.Retry", {"retry_type": "retry"}),
        (
            "webhook",
            "retry",
            "timeout: no answer",
            "users.messages.webhook.Retry",
            {"retry_type": "timeout", "retry_log": "timeout: no answer"},
        ),
        ("webhook", "failed", "", "users.messages.webhook.Failure", {"is_terminal": True, "retry_count": 1}),
        (
            "webhook",
            "failed",
            "404 Not Found",
            "users.messages.webhook.Failure",
            {"is_terminal": True, "retry_count": 1, "http_status_code": 404, "raw_response": "404 Not Found"},
        ),
        (
            "webhook",
            "failed",
            "retries_exhausted: 503 Busy",
            "users.messages.webhook.Failure",
            {"is_terminal": True, "retry_count": 1, "http_status_code": 503, "raw_response": "503 Busy"},
        ),
        (
            "webhook",
            "failed",
            "connection refused",
            "users.messages.webhook.Failure",
            {"is_terminal": True, "retry_count": 1, "webhook_failure_source": "connection refused"},
        ),
    ],
)
def test_message(channel: str, kind: OutcomeKind, reason: str, event_type: str, details: dict[str, JSONValue]) -> None:
    """Each outcome becomes the one event type that says what happened, with its reason in the right field."""
    record = told(kind, reason, channel)
    assert record is not None
    assert record.event_type == event_type
    assert record.time_ms == NOW_MS
    address: dict[str, JSONValue] = {"email_address": "a@example.com"} if channel == "email" else {}
    assert record.fields == {
        "id": currents_id(DISPATCH, event_type, "2"),
        "user_id": user_id("u1"),
        "external_user_id": "u1",
        "dispatch_id": DISPATCH,
        "campaign_id": definition_api_id("campaign", "win_back"),
        "campaign_name": "win_back",
        "message_variation_id": definition_api_id("variation", "win_back"),
        **address,
        **details,
    }


def test_a_failed_webhook_says_where_it_went() -> None:
    """The endpoint, its host and path, and the milliseconds of the last attempt are in the failure."""
    url = "https://hooks.example.com:8443/a/b?c=d"
    outcome = Outcome(DISPATCH, 6, "failed", NOW_MS, "404 Not Found", url, 90_000)
    record = message("u1", campaign="win_back", channel="webhook", dispatch_id=DISPATCH, outcome=outcome)
    assert record is not None
    wanted = {"endpoint_url": url, "host": "hooks.example.com:8443", "url_path": "/a/b", "webhook_duration": 90_000}
    assert wanted.items() <= record.fields.items()


@pytest.mark.parametrize("channel", ["email", "webhook", "log"])
def test_held_is_no_record(channel: str) -> None:
    """A held dispatch is still open, so nothing is exported."""
    assert told("held", "uncertain", channel) is None


@pytest.mark.parametrize("kind", ["sent", "aborted", "failed"])
def test_log_is_no_record(kind: OutcomeKind) -> None:
    """The log channel sends to nobody, so nothing is exported."""
    assert told(kind, channel="log") is None


@pytest.mark.parametrize(
    ("kind", "channel", "field", "limit"),
    [
        ("aborted", "email", "abort_log", 128),
        ("aborted", "webhook", "abort_log", 128),
        ("failed", "email", "bounce_reason", 1_024),
        ("failed", "webhook", "raw_response", 1_024),
    ],
)
def test_reasons_are_cut(kind: OutcomeKind, channel: str, field: str, limit: int) -> None:
    """A long reason is cut to its field's limit, and one of just that length is not."""
    long = told(kind, "550 " + "x" * limit, channel)
    exact = told(kind, ("550 " + "x" * limit)[:limit], channel)
    assert long is not None
    assert exact is not None
    assert long.fields[field] == exact.fields[field] == "550 " + "x" * (limit - 4)


@given(
    st.one_of(
        st.builds(custom_event, texts, st.builds(CustomEvent, texts, times_ms, properties), causes),
        st.builds(
            lambda who, purchase, cause: purchases(who, purchase, cause)[0],
            texts,
            st.builds(Purchase, texts, texts, st.decimals(allow_nan=False), st.just(1), times_ms, properties),
            causes,
        ),
        st.builds(
            lambda who, event, cause, known: sessions(who, event, cause, known, is_first=True)[-1],
            texts,
            st.builds(Session, st.booleans(), times_ms, st.none() | texts, st.none() | texts),
            causes,
            st.dictionaries(st.sampled_from(["gender", "country", "language", "time_zone", "other"]), texts),
        ),
        st.builds(
            lambda who, channel, outcome: message(
                who, campaign="win_back", channel=channel, dispatch_id=DISPATCH, outcome=outcome
            ),
            texts,
            st.sampled_from(["email", "webhook"]),
            st.builds(
                Outcome,
                texts,
                st.integers(1, 9),
                st.sampled_from(["sent", "retry", "aborted", "failed"]),
                times_ms,
                texts | st.sampled_from(["550 no", "404 no", "slug: no"]),
                texts | st.sampled_from(["https://a.example/b?c", "http://[::1]"]),
                st.integers(0, 1 << 40),
            ),
        ),
    )
)
def test_every_record_survives_topic_and_schema(record: CurrentsRecord) -> None:
    """Whatever is built comes back from the topic unchanged, with all required fields and no unknown one."""
    fields = row(record.fields, record.time_ms)
    value = topic_value(record)
    assert decode_row(value) == {"event_type": record.event_type, **fields}
    assert json.loads(value) == decode_row(value)
    assert event_type_of(topic_headers(record), b"") == event_type_of((), value) == record.event_type
    assert dict(topic_headers(record))["id"].decode() == fields["id"]
    schemaless_writer(BytesIO(), SCHEMAS[record.event_type], fields, strict_allow_default=True)
    if "properties" in record.fields:
        assert isinstance(json.loads(str(record.fields["properties"])), dict)
