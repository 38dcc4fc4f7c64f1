"""The SDK's protocol: the vectors that both sides are held to, and bodies that nobody meant."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadInput
from streams.ingest.raw_record import read_record
from streams.sdk_batch import Envelope, SdkBatch, read_envelope, read_items
from streams.times import parse_time

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors/sdk.json").read_text("utf-8"))
DEVICE = "00000000-0000-4000-8000-000000000001"
PARTITIONS = 8
NOW_MS = parse_time("2026-01-31T12:00:06Z")


def read(body: bytes, now_ms: int = NOW_MS, protected: frozenset[str] = frozenset()) -> tuple[Envelope, SdkBatch]:
    """A body as the door reads it."""
    envelope = read_envelope(body)
    return envelope, read_items(envelope, now_ms, PARTITIONS, protected)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_door_makes_of_each_body_what_its_vector_says(vector: dict[str, Any]) -> None:
    """The records, their keys and partitions, and the faults of every vector, or why the whole body is refused."""
    body = (vector.get("body_text") or json.dumps(vector["body"])).encode()
    now_ms, protected = parse_time(vector["now"]), frozenset(vector.get("protected", ()))
    if "refused" in vector:
        with pytest.raises(BadInput) as refused:
            read(body, now_ms, protected)
        assert {"reason": refused.value.reason, "field": refused.value.field} == vector["refused"]
        return
    _, found = read(body, now_ms, protected)
    for output, record in zip(found.outputs, vector["records"], strict=True):
        assert output.topic == "events"
        assert (output.partition, (output.key or b"").decode()) == (record["partition"], record["key"])
        assert output.value.decode() == record.get("value_text") or json.loads(output.value) == record["value"]
    faults = [{"index": f.index, "id": f.id, "reason": f.reason, "field": f.field} for f in found.faults]
    assert faults == vector["errors"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = ("id", "type", "time", "external_id", "device_id", "name", "product_id", "price", "attributes", "email")
TYPES = st.sampled_from(["event", "purchase", "attributes", "session_start", "session_end"])
ITEMS = st.fixed_dictionaries({"id": st.just("i") | JSON, "type": TYPES | JSON}) | JSON
MORE = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5)


@given(st.lists(st.tuples(ITEMS, MORE), max_size=5), JSON)
def test_what_the_door_takes_intake_takes(items: list[tuple[Any, dict[str, Any]]], sent_at: object) -> None:
    """No item raises anything but is a fault or a record, and of what is a record intake refuses nothing."""
    body = {
        "app_id": "a",
        "device_id": DEVICE,
        "sent_at": sent_at if isinstance(sent_at, str) else None,
        "items": [{**item, **more} if isinstance(item, dict) else item for item, more in items],
    }
    try:
        _, found = read(json.dumps(body).encode())
    except BadInput:
        return
    assert len(found.outputs) + len(found.faults) == len(items)
    for output in found.outputs:
        reading = read_record(output.key, output.value, NOW_MS)
        assert reading.rejected == []
        assert output.key == reading.routed[0].user.encode()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    """Whatever arrives is read, or refused as bad input."""
    with suppress(BadInput):
        read(body)


def test_a_deep_item_is_refused_and_no_other() -> None:
    """Nesting beyond the limit, in the item itself or in what is passed on, is that item's fault."""
    deep = '{"id":"d","type":"event","name":"x","properties":{"a":' + "[" * 100 + "]" * 100 + "}}"
    good = '{"id":"g","type":"event","name":"x"}'
    _, found = read(f'{{"app_id":"a","device_id":"{DEVICE}","items":[{deep},{good}]}}'.encode())
    assert [fault.reason for fault in found.faults] == ["too_deep"]
    assert len(found.outputs) == 1
