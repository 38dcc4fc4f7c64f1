"""The quick way to read one event or purchase gives what the thorough way gives, for good input and bad."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ingest import raw_record
from streams.ingest.raw_record import read_record

NOW_MS = 1_764_000_000_000
NESTED: Any = None
for _ in range(40):
    NESTED = [NESTED]

values = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
properties = st.one_of(
    st.none(), st.just([1]), st.just({"deep": NESTED}), st.dictionaries(st.text(max_size=5), values, max_size=4)
)
GOOD: tuple[dict[str, Any], ...] = (
    {"type": "event", "external_id": "ann", "name": "like"},
    {"type": "purchase", "external_id": "ann", "product_id": "cds", "currency": "USD", "price": 9.99},
)
ODD: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["event", "purchase", "attributes", "session_start", "party", None, 3]),
    "external_id": st.sampled_from(["é", "bob", "", "x" * 988, None, 7]),
    "name": st.sampled_from(["like", "", "x" * 300, 3]),
    "product_id": st.sampled_from(["cds", ""]),
    "currency": st.sampled_from(["usd", "USDX", None]),
    "price": st.sampled_from([1, "7.10", "NaN", 1e30, None]),
    "quantity": st.integers(-1, 101),
    "time": st.sampled_from(["2025-11-01T00:00:00Z", "2026-11-01", "9999-01-01", "soon", None, 5]),
    "properties": properties,
    "id": st.sampled_from(["one", "", None, 1]),
    "attributes": st.sampled_from([None, [], "junk"]),
    "events": st.sampled_from([None, [{"name": "x", "external_id": "ann"}], "junk"]),
    "purchases": st.sampled_from([None, [3], "junk"]),
    "unknown": values,
}
oddities = st.lists(
    st.sampled_from(sorted(ODD)).flatmap(lambda name: st.tuples(st.just(name), ODD[name])), min_size=0, max_size=3
)


def thoroughly(key: bytes | None, value: bytes) -> object:
    """The reading without the quick way."""
    with patch.object(raw_record, "_quick", lambda *arguments: None):
        return read_record(key, value, NOW_MS)


@given(st.sampled_from(GOOD), oddities, st.sampled_from([None, b"ann", "é".encode()]))
def test_the_quick_way_agrees_with_the_thorough_way(
    good: dict[str, Any], odd: list[tuple[str, Any]], key: bytes | None
) -> None:
    """Whatever up to three fields of a good object are replaced by, both ways give the same."""
    value = json.dumps({**good, **dict(odd)}, ensure_ascii=False).encode("utf-8", "surrogatepass")

    assert read_record(key, value, NOW_MS) == thoroughly(key, value)


@pytest.mark.parametrize("value", [b"\xff", b'{"type":"event","name":"\xff"}', b"", b" ", b"[]", b"[" * 10_000])
def test_what_is_no_object_is_refused_alike(value: bytes) -> None:
    """Bytes that are no text, no JSON or no object are refused in the same words on both ways."""
    assert read_record(None, value, NOW_MS) == thoroughly(None, value)


def test_a_good_event_takes_the_quick_way() -> None:
    """The quick way is taken for an ordinary event and an ordinary purchase, or all of this proves nothing."""
    event = b'{"type":"event","external_id":"ann","name":"like","properties":{"n":1}}'
    purchase = b'{"type":"purchase","external_id":"ann","product_id":"cds","currency":"USD","price":1}'

    assert raw_record._quick(None, event, NOW_MS) is not None
    assert raw_record._quick(None, purchase, NOW_MS) is not None
