"""The tables of docs/EXPORTS.md, made from the schemas: `python -m tests.export_tables` writes them."""

import re
import sys
from pathlib import Path

from streams.exports import SCHEMAS, Schema

PATH = Path(__file__).resolve().parent.parent / "docs" / "EXPORTS.md"
BEGIN, END = "<!-- fields: begin -->\n", "<!-- fields: end -->\n"


def field_tables() -> str:
    """One row per event type; a field is a string unless it says otherwise, and bold where it is never null."""
    rows = [f"| `{event_type}` | {_fields(schema)} |" for event_type, schema in SCHEMAS.items()]
    return "\n".join(["| event type | fields |", "| --- | --- |", *rows, ""])


def _fields(schema: Schema) -> str:
    words = []
    for field in schema["fields"]:
        is_nullable = isinstance(field["type"], list)
        kind = field["type"][1] if is_nullable else field["type"]
        if isinstance(kind, dict):
            kind = f"{kind['type']} of {kind['items']}"
        name = field["name"] if is_nullable else f"**{field['name']}**"
        words.append(name if kind == "string" else f"{name} {kind}")
    return ", ".join(words)


def with_tables(text: str) -> str:
    """The document with its tables made anew."""
    made = f"{BEGIN}\n{field_tables()}\n{END}"
    return re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: made, text, flags=re.DOTALL)


if __name__ == "__main__":
    PATH.write_text(with_tables(PATH.read_text("utf-8")), "utf-8")
    sys.exit(0)
