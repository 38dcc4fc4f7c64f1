"""Answers as people read them: aligned tables, trees by indentation, one line for what was done."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from streams.errors import BadSetting

Row = Mapping[str, Any]

GAP: Final = "  "
CELL_CHARS_MAX: Final = 60
NOTHING: Final = "-"
_REASONS: Final = ("filter", "params", "holds", "not", "all", "any")


def cell(value: object) -> str:
    """One value in a line: `-` for nothing, yes and no, and no line breaks or control characters."""
    if value is None or value in ("", {}, []):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{cell(name)}={cell(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(inner) for inner in value)
    return "".join(char if char.isprintable() else " " for char in str(value))


def table(rows: Sequence[Row], columns: Sequence[str] = (), *, width: int | None = None, nothing: str = "") -> str:
    """Rows under headings in capitals, numbers to the right.

    Args:
        rows: mappings; a key that a row lacks is shown as `-`.
        columns: the keys to show, in order; all of the first row by default.
        width: cut lines to so many characters, as of a terminal; None leaves the last column whole.
        nothing: the text where there are no rows.
    """
    if not rows:
        return nothing
    names = list(columns or rows[0])
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    numeric = [all(isinstance(row.get(name), int | float | None) for row in rows) for name in names]
    cells = [[_cut(text, CELL_CHARS_MAX) if at < len(names) - 1 else text for at, text in enumerate(c)] for c in cells]
    head = [name.replace("_", " ").upper() for name in names]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = []
    for texts in (head, *cells):
        padded = [
            text.rjust(size) if right else text.ljust(size)
            for text, size, right in zip(texts, widths, numeric, strict=True)
        ]
        lines.append(_cut(GAP.join(padded).rstrip(), width))
    return "\n".join(lines)


def named(answer: Mapping[str, Row], name: str) -> list[dict[str, Any]]:
    """A mapping of rows as rows that carry their key under `name`, each with every column."""
    columns = list(dict.fromkeys(column for row in answer.values() for column in row))
    return [{name: key, **{column: row.get(column, 0) for column in columns}} for key, row in answer.items()]


_REPORTED: Final = ("sent", "delivered", "unique_opens", "unique_clicks", "conversions_a", "unsubscribes", "bounces")


def report(answer: Row | Sequence[Row]) -> list[dict[str, Any]]:
    """A campaign's variants, or every campaign, over all time."""
    if isinstance(answer, Mapping):
        return [{"variant": each["variant"] or NOTHING, **_reported(each)} for each in answer["variants"]]
    return [{"campaign": each["campaign"], "state": each["state"], **_reported(each)} for each in answer]


def report_csv(answer: Row | Sequence[Row]) -> str:
    """A campaign's series as CSV."""
    from streams.campaign_report import to_csv  # noqa: PLC0415  # compiled, perhaps: not before that is decided

    if not isinstance(answer, Mapping):
        raise BadSetting("--csv: name the campaign")
    return to_csv(answer).rstrip("\r\n")


def _reported(each: Row) -> dict[str, Any]:
    totals = each["totals"]
    return {
        **{name: totals[name] for name in _REPORTED},
        "errors": totals["errors"] + totals["aborts"],
        "revenue": totals["revenue"],
        "control": each.get("control", totals["control"]),
    }


def tree(value: object, indent: int = 0) -> str:
    """Nested mappings, a key per line; what is small stands on one line."""
    return "\n".join(_tree_lines(value, indent))


def _tree_lines(value: object, indent: int) -> Iterable[str]:
    pad = " " * indent
    if not isinstance(value, Mapping):
        yield pad + cell(value)
        return
    size = max((len(cell(name)) for name in value), default=0)
    for name, inner in value.items():
        is_long = isinstance(inner, Mapping) and len(cell(inner)) > CELL_CHARS_MAX
        if is_long or (isinstance(inner, Mapping) and any(isinstance(each, Mapping) for each in inner.values())):
            yield f"{pad}{cell(name)}"
            yield from _tree_lines(inner, indent + 2)
        else:
            yield f"{pad}{cell(name).ljust(size)}{GAP}{cell(inner)}"


def why(answer: Row) -> str:
    """An explanation: the verdict, then the filter tree, each node with its own."""
    verb = "is in" if answer["member"] else "is not in"
    head = f"{cell(answer['external_id'])} {verb} {answer['segment']}, at {answer['at']}"
    if answer.get("building"):
        head += "; new definitions are being built, and this user is not decided by them yet"
    return "\n".join([head, *_why_lines(answer["why"], 1)])


def _why_lines(node: Row, depth: int) -> Iterable[str]:
    mark = ("yes" if node["holds"] else "no").ljust(4) + GAP * depth
    joined = next((name for name in ("all", "any") if name in node), None)
    if joined:
        yield f"{mark}{joined} of"
        for part in node[joined]:
            yield from _why_lines(part, depth + 1)
    elif "not" in node:
        yield f"{mark}not"
        yield from _why_lines(node["not"], depth + 1)
    else:
        facts = {name: value for name, value in node.items() if name not in _REASONS and value is not None}
        yield f"{mark}{node['filter']} ({cell(node['params'])}): {cell(facts)}".rstrip(": ")


def lag(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Lag per agent and topic, with the partition that is furthest behind."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["agent"], row["topic"]), []).append(row)
    found = []
    for (agent, topic), group in groups.items():
        worst = max(group, key=lambda row: row["lag"])
        found.append(
            {
                "agent": agent,
                "topic": topic,
                "partitions": len(group),
                "lag": sum(row["lag"] for row in group),
                "worst": f"partition {worst['partition']}: {worst['lag']}" if worst["lag"] else None,
            }
        )
    return found


def status(answer: Row) -> str:
    """The headline and the fan-outs under way, then each component with its state, for how long, and why."""
    rows = [
        {
            "component": each["component"],
            "state": each["state"],
            "for": _ago((answer["at_ms"] - each["since_ms"]) / 1000),
            "why": each["why"],
        }
        for each in answer["components"]
    ]
    sending = "".join(f"\n{cell(_sending(each))}" for each in answer.get("sending", ()))
    return f"{cell(answer['headline'])}{sending}\n\n{table(rows)}"


def _sending(each: Row) -> str:
    """How far a fan-out is, in one line."""
    ends = f", ends about {each['ends']}" if each["ends"] else ""
    share = 100 * each["decided"] // each["users"]
    return f"{each['campaign']}: {each['decided']:,} of {each['users']:,} users decided ({share} %){ends}"


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def letters(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Dead letters, the refused record's place in one column."""
    return [
        {
            "at": row["at"],
            "reason": row["reason"],
            "field": row["field"],
            "record": f"{row['topic']} {row['partition']}/{row['offset']}",
            "item": "whole" if row["whole"] else row["item"],
            "replayed": row["replayed"] or ("gone" if row["gone"] else None),
            "key": row["key"],
            "detail": row["detail"],
        }
        for row in rows
    ]


def _cut(text: str, width: int | None) -> str:
    return text if width is None or len(text) <= width else text[: max(0, width - 1)] + "…"


def applied(answer: Row) -> str:
    """What `definitions apply` has changed."""
    if not answer["applied"]:
        return f"in force already, as version {answer['version']}"
    changes = "\n".join(
        f"  {row['change']:<8} {row['kind']} {row['name']}" + (f" (the past: {row['past']})" if "past" in row else "")
        for row in answer["changes"]
    )
    paused = f"\nstill paused: {cell(answer['paused'])}" if answer["paused"] else ""
    return f"in force now, as version {answer['version']}:\n{changes}{paused}"
