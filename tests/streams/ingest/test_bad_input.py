"""Bad input: each kind is dead-lettered with its reason, raw and with its position, and harms no neighbour."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import track
from streams.ingest.raw_record import RECORD_BYTES_MAX, read_record
from streams.intake import route
from streams.mailbox import Happening, decode_letter
from streams.records import Output, Record
from streams.times import format_time, hour_of
from tests.driver import Driver

NOW_MS = 1_764_000_000_000
DEEP = b"[" * 10_000 + b"]" * 10_000
MANY = b",".join(b'"a%d":1' % at for at in range(10_000))

CASES = {
    "not_json": (b"hello", "not_json"),
    "array": (b"[]", "wrong_type"),
    "empty_record": (b"", "empty"),
    "empty_body": (b"{}", "empty"),
    "name_is_number": (b'{"type":"event","external_id":"a","name":3}', "wrong_type"),
    "no_name": (b'{"type":"event","external_id":"a"}', "missing_field"),
    "no_user": (b'{"type":"event","name":"x"}', "missing_user"),
    "unknown_type": (b'{"type":"party","external_id":"a"}', "unknown_type"),
    "five_mb": (b'{"type":"event","external_id":"a","name":"' + b"x" * 5_000_000 + b'"}', "too_large"),
    "deep": (b'{"type":"event","external_id":"a","name":"x","properties":{"p":' + DEEP + b"}}", "too_deep"),
    "not_utf8": (b'{"type":"event","external_id":"a","name":"\xff"}', "invalid_utf8"),
    "nan": (b'{"type":"event","external_id":"a","name":"x","properties":{"p":NaN}}', "not_json"),
    "many": (b'{"type":"attributes","external_id":"a",' + MANY + b"}", "too_many_attributes"),
    "year_9999": (b'{"type":"event","external_id":"a","name":"x","time":"9999-01-01"}', "time_in_future"),
    "no_time": (b'{"type":"event","external_id":"a","name":"x","time":"soon"}', "bad_value"),
    "big_number": (b'{"type":"attributes","external_id":"a","n":12345678901234567890123}', "bad_value"),
    "price_nan": (
        b'{"type":"purchase","external_id":"a","product_id":"p","currency":"USD","price":"NaN"}',
        "bad_value",
    ),
    "quantity_0": (
        b'{"type":"purchase","external_id":"a","product_id":"p","currency":"USD","price":1,"quantity":0}',
        "wrong_type",
    ),
    "blank": (b" \n", "empty"),
    "empty_lists": (b'{"events":[],"attributes":null}', "empty"),
    "deep_start": (b"[" * 10_000, "wrong_type"),
    "deep_attribute": (b'{"type":"attributes","external_id":"a","x":' + DEEP + b"}", "too_deep"),
    "deep_unknown": (b'{"type":"event","external_id":"a","name":"x","zz":' + DEEP + b"}", "too_deep"),
    "nan_attribute": (b'{"type":"attributes","external_id":"a","n":NaN}', "not_json"),
    "infinite": (b'{"type":"attributes","external_id":"a","n":-Infinity}', "not_json"),
    "float_1e999": (b'{"type":"attributes","external_id":"a","n":1e999}', "wrong_type"),
    "surrogate_name": (b'{"type":"event","external_id":"a","name":"\\ud800 x"}', "not_json"),
    "surrogate_user": (b'{"type":"event","external_id":"\\udc00","name":"x"}', "not_json"),
    "surrogate_bytes": (b'{"type":"event","external_id":"a","name":"\xed\xa0\x80"}', "invalid_utf8"),
    "user_empty": (b'{"type":"event","external_id":"","name":"x"}', "missing_user"),
    "user_long": (b'{"type":"event","external_id":"' + b"a" * 988 + b'","name":"x"}', "bad_value"),
    "year_0": (b'{"type":"event","external_id":"a","name":"x","time":"0001-01-01T00:00:00+14:00"}', "bad_value"),
}

EVENT = {"type": "event", "external_id": "a", "name": "x"}
BOUGHT = {"type": "purchase", "external_id": "a", "product_id": "p", "currency": "USD", "price": 1}
FIELDS = {"type": "attributes", "external_id": "a"}
SESSION = {"type": "session_start", "external_id": "a"}
DIGITS_23 = 12_345_678_901_234_567_890_123

# An object that is fine but for these fields, then the field and the reason that the dead letter names.
FIELD_CASES: tuple[tuple[dict[str, Any], dict[str, Any], str, str], ...] = (
    *((good, {"external_id": 7}, "external_id", "wrong_type") for good in (EVENT, BOUGHT, FIELDS, SESSION)),
    *((good, {"time": 1_700_000_000}, "time", "wrong_type") for good in (EVENT, BOUGHT, FIELDS, SESSION)),
    *((good, {"time": "9999-12-31"}, "time", "time_in_future") for good in (EVENT, BOUGHT, FIELDS, SESSION)),
    *((good, {"id": 7}, "id", "wrong_type") for good in (EVENT, BOUGHT, FIELDS, SESSION)),
    (EVENT, {"type": 5}, "type", "wrong_type"),
    (EVENT, {"name": ""}, "name", "wrong_type"),
    (EVENT, {"name": "x" * 256}, "name", "wrong_type"),
    (EVENT, {"properties": []}, "properties", "wrong_type"),
    (EVENT, {"properties": {"n": DIGITS_23}}, "properties", "bad_value"),
    (EVENT, {"properties": {"n": [{"m": -DIGITS_23}]}}, "properties", "bad_value"),
    (EVENT, {"properties": {str(at): 1 for at in range(257)}}, "properties", "too_many_properties"),
    (BOUGHT, {"product_id": 1}, "product_id", "wrong_type"),
    (BOUGHT, {"currency": 1}, "currency", "wrong_type"),
    (BOUGHT, {"currency": "US"}, "currency", "bad_value"),
    (BOUGHT, {"price": True}, "price", "wrong_type"),
    (BOUGHT, {"price": "cheap"}, "price", "wrong_type"),
    (BOUGHT, {"price": None}, "price", "wrong_type"),
    *(
        (BOUGHT, {"price": text}, "price", "bad_value")
        for text in ("NaN", "sNaN", "Infinity", "1e999", "1e-9", "-1e1000000", "0E+999999999")
    ),
    (BOUGHT, {"price": DIGITS_23}, "price", "bad_value"),
    (BOUGHT, {"quantity": 1.5}, "quantity", "wrong_type"),
    (BOUGHT, {"quantity": 101}, "quantity", "wrong_type"),
    (BOUGHT, {"quantity": DIGITS_23}, "quantity", "wrong_type"),
    (FIELDS, {"x": []}, "x", "unsupported_attribute"),
    (FIELDS, {"x": {"y": 1}}, "x", "unsupported_attribute"),
    (FIELDS, {"x": DIGITS_23}, "x", "bad_value"),
    (FIELDS, {"email": 1}, "email", "wrong_type"),
    (FIELDS, {"email": "ann"}, "email", "bad_value"),
    (FIELDS, {"email_subscribe": "yes"}, "email_subscribe", "bad_value"),
    (SESSION, {"app_id": 1}, "app_id", "wrong_type"),
)


@pytest.mark.parametrize("name", sorted(CASES))
def test_bad_records_are_dead_lettered_and_neighbours_processed(name: str) -> None:
    """A bad record is kept raw with reason and position, and the records around it are applied."""
    value, reason = CASES[name]
    driver = Driver({})
    good = {"type": "event", "external_id": "mel", "name": "like"}
    driver.send(good)
    driver.send(value)
    driver.send(good)
    (letter,) = driver.dead_letters
    headers = dict(letter.headers)
    assert reason.encode() == headers["reason"]
    assert value == letter.value
    assert tuple(headers[key] for key in ("topic", "partition", "offset", "item")) == (b"events", b"0", b"1", b"0")
    assert driver.user("mel").events["like"].count == 2


def test_a_record_that_breaks_its_reader_is_dead_lettered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody has thought of costs the record that it was raised by, and no other."""
    real = track.event_time

    def event_time(text: str | None, append_ms: int) -> int:
        if text == "doomsday":
            raise ArithmeticError(text)
        return real(text, append_ms)

    monkeypatch.setattr(track, "event_time", event_time)
    driver = Driver({})
    good = {"type": "event", "external_id": "mel", "name": "like"}
    driver.send(good)
    driver.send({**good, "time": "doomsday"})
    driver.send(good)

    (letter,) = driver.dead_letters
    assert dict(letter.headers)["reason"] == b"reader_error"
    assert driver.user("mel").events["like"].count == 2


def test_a_contradicting_key_is_refused() -> None:
    """A key that names another user than the value is a key_mismatch, and the right one is not."""
    value = b'{"type":"event","external_id":"a","name":"x"}'
    assert [one.reason for one in read_record(b"b", value, NOW_MS).rejected] == ["key_mismatch"]
    assert [one.user for one in read_record(b"a", value, NOW_MS).routed] == ["a"]


def test_one_bad_object_spoils_no_other() -> None:
    """Within a track body only the bad object is refused, with its own item number."""
    value = b'{"events":[{"external_id":"a","name":"x"},{"name":"y"},{"external_id":"b","name":"z"}]}'
    reading = read_record(None, value, NOW_MS)
    assert [(one.user, one.item) for one in reading.routed] == [("a", 0), ("b", 2)]
    assert [(one.item, one.reason) for one in reading.rejected] == [(1, "missing_user")]


def headers_of(letter: Output) -> dict[str, str]:
    """The headers of a dead letter by name."""
    return {name: value.decode() for name, value in letter.headers}


@pytest.mark.parametrize(("good", "wrong", "field", "reason"), FIELD_CASES, ids=str)
def test_the_field_is_named(good: dict[str, Any], wrong: dict[str, Any], field: str, reason: str) -> None:
    """An object that one field spoils is refused by that field's name and reason; without it, it is applied."""
    driver = Driver({})
    driver.send(good)
    assert driver.dead_letters == []
    driver.send(json.dumps({**good, **wrong}).encode())

    (letter,) = driver.dead_letters
    assert (headers_of(letter)["field"], headers_of(letter)["reason"]) == (field, reason)


def test_headers_and_raw_bytes() -> None:
    """A dead letter has the raw bytes, the key, and every header of the public contract."""
    value = b'{"events":[{"external_id":"a","name":"x"},{"external_id":"a","name":7}],"note":"\xc3\xa9"}'
    *_, letter = route(Record(41, NOW_MS, b"a", value), "events", 3, 8, "wall")
    headers = headers_of(letter)

    assert (letter.topic, letter.key, letter.value) == ("dead-letters", b"a", value)
    assert headers.pop("detail")
    assert headers == {
        "topic": "events",
        "partition": "3",
        "offset": "41",
        "item": "1",
        "reason": "wrong_type",
        "field": "name",
        "at": format_time(NOW_MS),
    }


def test_neighbours_of_every_bad_field_in_one_body() -> None:
    """In one track body with every bad field, each is refused under its own number and all others are applied."""
    skipped = ("type", "id", "time")  # of a single object only, or a name like any other inside a body's attributes
    cases = [
        (good, wrong, reason)
        for good, wrong, _, reason in FIELD_CASES
        if good in (EVENT, BOUGHT) and not set(wrong) & set(skipped)
    ]
    body: dict[str, list[dict[str, Any]]] = {"events": [EVENT], "purchases": [BOUGHT]}
    for good, wrong, _ in cases:
        body["events" if good is EVENT else "purchases"] += [{**good, **wrong}, good]
    driver = Driver({})
    driver.send(json.dumps(body).encode())

    refused = [headers_of(letter) for letter in driver.dead_letters]
    in_order = [reason for kind in (EVENT, BOUGHT) for good, _, reason in cases if good is kind]
    events = [good for good, _, _ in cases].count(EVENT)
    items = [*range(1, 2 * events, 2), *range(2 * events + 2, 2 * len(cases) + 2, 2)]
    assert [one["reason"] for one in refused] == in_order
    assert [int(one["item"]) for one in refused] == items
    bought = driver.user("a").purchases
    assert bought is not None
    assert driver.user("a").events["x"].count == 1 + events
    assert bought.count == 1 + len(cases) - events


objects = st.dictionaries(
    st.sampled_from(["type", "external_id", "name", "time", "id", "properties", "price", "quantity", "currency"])
    | st.sampled_from(["product_id", "attributes", "events", "purchases", "email", "x"]),
    st.sampled_from(["event", "purchase", "attributes", "a", "USD", "2024-01-01", "0E+999999", "1", True, None, 1])
    | st.recursive(st.none() | st.floats() | st.integers() | st.text(max_size=4), st.lists, max_leaves=3),
)
bodies = st.dictionaries(st.sampled_from(["events", "attributes", "purchases"]), st.lists(objects, max_size=3))
typed = st.sampled_from([EVENT, BOUGHT, FIELDS, SESSION])
mixed = st.builds(lambda good, wrong: {**good, **wrong}, typed, objects)


@given(objects | bodies | mixed, st.none() | st.binary(max_size=4))
def test_what_is_routed_can_be_stored_and_written(thing: dict[str, Any], key: bytes | None) -> None:
    """Any JSON gives letters that read back equal, whose times can be written, or dead letters; it never raises."""
    value = json.dumps(thing).encode()
    routed = read_record(key, value, NOW_MS).routed
    outputs = route(Record(0, NOW_MS, key, value), "events", 0, 4, "wall")
    letters = [decode_letter(output.value) for output in outputs if output.topic == "mailbox"]

    assert [letter.event for letter in letters if isinstance(letter, Happening)] == [one.event for one in routed]
    for one in routed:
        assert hour_of(one.event.time_ms) == format_time(one.event.time_ms)[:13].replace("T", "-")


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: b'{"type":' + text.encode() + b"}"))
def test_no_bytes_ever_raise(value: bytes) -> None:
    """Whatever the bytes, intake answers with letters that decode or with dead letters, never with an error."""
    assert len(value) < RECORD_BYTES_MAX
    outputs = route(Record(0, NOW_MS, None, value), "events", 0, 4, "wall")
    assert outputs
    assert all(decode_letter(output.value) for output in outputs if output.topic == "mailbox")
