"""Avro rows, written without asking again at every row which nullable fields it lacks."""

from collections.abc import Mapping
from io import BytesIO
from types import MappingProxyType
from typing import Final

import msgspec
from fastavro import parse_schema, schemaless_writer

from streams.events import JSONValue
from streams.exports import Row, Schema

SHAPES_MAX: Final = 64
"""Shapes that are remembered of a schema; rows of one event type come in a handful."""

_NULL, _VALUE = b"\x00", b"\x02"  # the branch of `["null", type]` that follows, as the Avro specification writes it


class _Shape(msgspec.Struct, frozen=True):
    """A schema that writes the same bytes for rows with certain fields, and the fields that it needs beside."""

    schema: Schema
    gaps: Mapping[str, bytes]


class RowWriter:
    """Writes rows of one schema, whose nullable fields are all `["null", type]`.

    fastavro tries the branches of every nullable field of every row, which for our wide and sparse rows is
    most of its time. Rows that have the same fields differ in no branch, so each such shape gets a schema
    of its own, in which the branches are constant bytes.
    """

    def __init__(self, schema: Schema) -> None:
        """Write rows of this schema, as it is before parsing."""
        self._schema = schema
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def write(self, content: BytesIO, row: Row) -> None:
        """Append a row; fields that the schema does not know are left out, those that are None are absent.

        Raises:
            TypeError, ValueError, OverflowError: the row does not fit the schema; part of it may be written.
        """
        if None in row.values():
            row = {name: value for name, value in row.items() if value is not None}
        names = tuple(row)
        shape = self._shapes.get(names)
        if shape is None:
            shape = self._remember(names)
        schemaless_writer(content, shape.schema, {**row, **shape.gaps})

    def _remember(self, names: tuple[str, ...]) -> _Shape:
        if len(self._shapes) >= SHAPES_MAX:
            self._shapes.clear()
        shape = self._shapes[names] = _shape(self._schema, frozenset(names))
        return shape


def _shape(schema: Schema, names: frozenset[str]) -> _Shape:
    """The schema of rows that have exactly these fields."""
    fields: list[JSONValue] = []
    gaps: dict[str, bytes] = {}
    constant = b""
    for field in schema["fields"]:
        name, kind = field["name"], field["type"]
        if isinstance(kind, list):
            if name not in names:
                constant += _NULL
                continue
            constant += _VALUE
            kind = kind[1]
        constant = _close(fields, gaps, constant)
        fields.append({"name": name, "type": kind})
    _close(fields, gaps, constant)
    parsed: Schema = parse_schema({**schema, "fields": fields})  # type: ignore[assignment]  # fastavro says str | list | dict
    return _Shape(parsed, MappingProxyType(gaps))


def _close(fields: list[JSONValue], gaps: dict[str, bytes], constant: bytes) -> bytes:
    """Let a field of fixed bytes stand for the branches since the last one; returns those of the next."""
    if constant:
        name = f"gap_{len(gaps)}"
        fields.append({"name": name, "type": {"type": "fixed", "name": name, "size": len(constant)}})
        gaps[name] = constant
    return b""
