"""Depth of JSON: counted by taking brackets away, compared with a walk over the decoded value."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.depth import DEPTH_MAX, is_deeper
from streams.events import JSONValue
from streams.ingest.raw_record import read_record
from tests.driver import Driver

NOW_MS = 1_764_000_000_000
TRICKY = st.text(alphabet='[]{}"\\,:aé', max_size=6)
VALUES = st.recursive(
    st.none() | st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: JSONValue) -> int:
    """Levels of lists and objects, the outermost counting as one."""
    if not isinstance(value, list | dict):
        return 0
    return 1 + max((depth_of(inner) for inner in (value.values() if isinstance(value, dict) else value)), default=0)


def nested(levels: int) -> JSONValue:
    """A value of so many levels, of lists and objects in turn."""
    value: JSONValue = 1
    for level in range(levels):
        value = [value, "]"] if level % 2 else {"in": value}
    return value


@given(VALUES, st.integers(0, 8), st.booleans())
def test_depth_equals_a_walk(value: JSONValue, levels: int, plain: bool) -> None:
    """For any JSON, brackets and quotes in strings included, the count says what a walk says."""
    assert is_deeper(json.dumps(value, ensure_ascii=plain).encode(), levels) == (depth_of(value) > levels)


@pytest.mark.parametrize("kind", ["event", "purchase", "attributes", "session_start"])
@pytest.mark.parametrize("extra", [0, 1, 900])
def test_a_field_that_nobody_reads_is_held_to_the_limit(kind: str, extra: int) -> None:
    """An unknown field down to level 32 of its object is let pass; one level more is refused by its name."""
    thing = {"type": kind, "external_id": "a", "name": "x", "product_id": "p", "currency": "USD", "price": 1}
    if kind == "attributes":
        thing = {"type": kind, "external_id": "a"}
    name = "_update_existing_only" if kind == "attributes" else "zz"
    driver = Driver({})
    driver.send({**thing, name: nested(DEPTH_MAX - 1 + extra)})

    refused = [{key: value.decode() for key, value in one.headers} for one in driver.dead_letters]
    assert [(one["reason"], one["field"]) for one in refused] == ([("too_deep", name)] if extra else [])


def test_within_a_body_only_the_deep_object_is_refused() -> None:
    """In a body each object has its own 32 levels; a deep field of the body itself refuses the whole record."""
    good: dict[str, Any] = {"external_id": "a", "name": "x"}
    events = [{**good, "zz": nested(DEPTH_MAX - 1)}, {**good, "yy": nested(DEPTH_MAX)}, good]
    reading = read_record(None, json.dumps({"events": events}).encode(), NOW_MS)
    assert [one.item for one in reading.routed] == [0, 2]
    assert [(one.item, one.reason, one.field) for one in reading.rejected] == [(1, "too_deep", "yy")]

    reading = read_record(None, json.dumps({"events": events, "note": nested(DEPTH_MAX)}).encode(), NOW_MS)
    assert [(one.item, one.reason, one.field) for one in reading.rejected] == [(0, "too_deep", "note")]
    assert reading.routed == []


@pytest.mark.parametrize("twin", [b'"zz":1', b'"\\ud800":1'])
def test_a_deep_field_does_not_hide_behind_its_name(twin: bytes) -> None:
    """A deep field whose name is written twice, or beside a name that is no text, is refused all the same."""
    deep = json.dumps(nested(DEPTH_MAX)).encode()
    value = b'{"type":"event","external_id":"a","name":"x","zz":' + deep + b"," + twin + b"}"
    (rejected,) = read_record(None, value, NOW_MS).rejected
    assert rejected.reason in ("too_deep", "not_json")
