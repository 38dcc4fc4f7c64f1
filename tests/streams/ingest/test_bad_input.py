"""Bad input: each kind is dead-lettered with its reason, raw and with its position, and harms no neighbour."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ingest.raw_record import RECORD_BYTES_MAX, read_record
from streams.intake import route
from streams.mailbox import decode_letter
from streams.records import Record
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
}


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


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: b'{"type":' + text.encode() + b"}"))
def test_no_bytes_ever_raise(value: bytes) -> None:
    """Whatever the bytes, intake answers with letters that decode or with dead letters, never with an error."""
    assert len(value) < RECORD_BYTES_MAX
    outputs = route(Record(0, NOW_MS, None, value), "events", 0, 4, "wall")
    assert outputs
    assert all(decode_letter(output.value) for output in outputs if output.topic == "mailbox")
