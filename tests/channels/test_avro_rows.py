"""Rows written by their shape, beside what fastavro writes and reads of them by the whole schema."""

from io import BytesIO

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from channels.avro_rows import SHAPES_MAX, RowWriter
from streams.events import JSONValue
from streams.exports import SCHEMAS, Row, Schema

_VALUES: dict[str, st.SearchStrategy[JSONValue]] = {
    "string": st.text(max_size=20),
    "int": st.integers(-(2**31), 2**31 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "boolean": st.booleans(),
}


def _values(kind: JSONValue) -> st.SearchStrategy[JSONValue]:
    return st.lists(_VALUES[kind["items"]], max_size=3) if isinstance(kind, dict) else _VALUES[kind]


@st.composite
def rows_of_a_schema(draw: st.DrawFn) -> tuple[Schema, list[Row]]:
    """A schema and rows that fit it, with absent, present and None fields in any order."""
    schema = SCHEMAS[draw(st.sampled_from(sorted(SCHEMAS)))]
    rows = []
    for _ in range(draw(st.integers(1, 3))):
        row: Row = {"event_type": "not a field of the schema"}
        for field in draw(st.permutations(schema["fields"])):
            kind = field["type"]
            if not isinstance(kind, list):
                row[field["name"]] = draw(_VALUES[kind])
            elif draw(st.booleans()):
                row[field["name"]] = draw(st.none() | _values(kind[1]))
        rows.append(row)
    return schema, rows


@given(rows_of_a_schema())
def test_bytes_are_those_of_the_whole_schema(case: tuple[Schema, list[Row]]) -> None:
    """Whatever fields a row has, its bytes are what fastavro makes of it by the whole schema, and read back."""
    schema, rows = case
    parsed = parse_schema(schema)
    writer = RowWriter(schema)
    for row in rows:
        ours, theirs = BytesIO(), BytesIO()
        writer.write(ours, row)
        schemaless_writer(theirs, parsed, row)
        assert ours.getvalue() == theirs.getvalue()
        ours.seek(0)
        assert isinstance(schemaless_reader(ours, parsed, None), dict)


def test_missing_field_is_refused() -> None:
    """A row without a field that is not nullable fits no schema."""
    with pytest.raises(ValueError, match="user_id"):
        RowWriter(SCHEMAS["users.behaviors.CustomEvent"]).write(BytesIO(), {"id": "x", "time": 1})


def test_shapes_are_bounded() -> None:
    """However many shapes come by, only so many are remembered."""
    schema = SCHEMAS["users.messages.webhook.Failure"]
    writer = RowWriter(schema)
    optional = [field["name"] for field in schema["fields"] if isinstance(field["type"], list)]
    required: Row = {field["name"]: 1 if field["type"] == "int" else "x" for field in schema["fields"][:4]}
    for number in range(SHAPES_MAX + 10):
        chosen = {name: "1" for at, name in enumerate(optional[:8]) if number >> at & 1}
        writer.write(BytesIO(), {**required, **chosen})
    assert len(writer._shapes) <= SHAPES_MAX
