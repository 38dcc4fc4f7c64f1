"""A table of users or events, as CSV holds it: what its columns mean, and the record of each row.

As Braze imports it: one user or event per row, reserved names for standard fields, any other column a custom
attribute or property, a blank cell leaves the value as it is.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from streams.codec import to_json
from streams.errors import BadInput, BadSetting
from streams.events import JSONValue
from streams.ingest.raw_record import read_record
from streams.profiles.fields import STANDARD
from streams.times import format_time, parse_time
from streams.track import NAME_CHARS_MAX

Kind = Literal["attributes", "events"]
Type = Literal["text", "number", "boolean", "time"]

KINDS: Final[tuple[Kind, ...]] = ("attributes", "events")
TYPES: Final[tuple[Type, ...]] = ("text", "number", "boolean", "time")
COLUMNS_MAX: Final = 1_000
SAMPLE_ROWS: Final = 1_000
"""So many rows at the head of a table decide the type of a column that is not told."""

USER: Final = "external_id"
SKIP: Final = "-"
_EVENT_FIELDS: Final = ("name", "time")
_OTHER_IDS: Final = ("braze_id", "user_alias_name", "user_alias_label")
_GROUPS: Final = ("subscription_group_id", "subscription_state")
_NOT_NAMES: Final = ("type", "id", "time")
_NUMBER: Final = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,15})?")
_BOOLEANS: Final = {"true": True, "false": False}
_ID_BYTES: Final = 16
_OF_EVENT: Final = ".properties."


class Column(NamedTuple):
    """A column: its name in the file, the field that it fills (empty: none), and the type of its cells."""

    name: str
    field: str
    type: Type


class Table(NamedTuple):
    """What the rows of a file are, and what its columns mean."""

    kind: Kind
    columns: tuple[Column, ...]

    @property
    def user(self) -> int:
        """The index of the column that says whose row it is."""
        return next(at for at, column in enumerate(self.columns) if column.field == USER)


def read_mapping(texts: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What `COLUMN=FIELD`, `COLUMN=FIELD:TYPE` and `COLUMN=-` (leave out) say: column → (field, type or "").

    Raises:
        BadSetting: a text of another form, or an unknown type.
    """
    mapping: dict[str, tuple[str, str]] = {}
    for text in texts:
        column, equals, target = text.rpartition("=")
        field, _, kind = target.partition(":")
        if not (column and equals and field) or (kind and kind not in TYPES):
            raise BadSetting(f"--map {text!r}: write COLUMN=FIELD, COLUMN=FIELD:TYPE ({'|'.join(TYPES)}) or COLUMN=-")
        mapping[column] = field, kind
    return mapping


def plan_table(
    kind: Kind,
    header: Sequence[str],
    sample: Sequence[Sequence[str]],
    mapping: Mapping[str, tuple[str, str]],
) -> Table:
    """Decide what each column means; types that the mapping does not tell are inferred from the sample.

    Raises:
        BadSetting: no column is the user's id, two fill one field, or a name that cannot be imported.
    """
    missing = set(mapping) - set(header)
    if missing:
        raise BadSetting(f"--map {min(missing)}: the file has no such column; it has {', '.join(header)}")
    if len(header) > COLUMNS_MAX:
        raise BadSetting(f"{len(header)} columns, at most {COLUMNS_MAX}; split the file")
    columns = []
    for at, name in enumerate(header):
        field, told = mapping.get(name, (name, ""))
        field = "" if field == SKIP else field
        cells = [row[at] for row in sample if len(row) == len(header)]
        columns.append(Column(name, field, _type(kind, field, told, cells)))
    _check(kind, columns)
    return Table(kind, tuple(columns))


def _type(kind: Kind, field: str, told: str, cells: Sequence[str]) -> Type:
    """Standard fields are text whatever they look like; a column is of a type if all of its cells are."""
    if field == USER or (kind == "events" and field in _EVENT_FIELDS) or (kind == "attributes" and field in STANDARD):
        return "text"
    for each in TYPES:
        if each == told:
            return each
    filled = [cell for cell in cells if cell]
    if filled and all(cell.lower() in _BOOLEANS for cell in filled):
        return "boolean"
    if filled and all(_NUMBER.fullmatch(cell) for cell in filled):
        return "number"
    return "time" if filled and all(_is_time(cell) for cell in filled) else "text"


def _is_time(cell: str) -> bool:
    try:
        parse_time(cell)
    except ValueError:
        return False
    return True


def _check(kind: Kind, columns: Sequence[Column]) -> None:
    fields = [column.field for column in columns if column.field]
    required = (USER, *_EVENT_FIELDS) if kind == "events" else (USER,)
    for field in required:
        if field not in fields:
            raise BadSetting(f"no column {field!r}; name the one that holds it with --map COLUMN={field}")
    for field in fields:
        if fields.count(field) > 1:
            raise BadSetting(f"two columns fill {field!r}; leave one out with --map COLUMN=-")
        if kind == "attributes" and field in _GROUPS:
            raise BadSetting(
                f"column {field!r}: subscription groups are not there yet; email_subscribe and push_subscribe are. "
                f"Leave it out, --map {field}=-"
            )
        if field in _OTHER_IDS or (kind == "attributes" and field in _NOT_NAMES):
            raise BadSetting(f"column {field!r} cannot be imported; leave it out or rename it, --map {field}=…")
        if len(field) > NAME_CHARS_MAX:
            raise BadSetting(f"column {field[:40]!r}…: a name has at most {NAME_CHARS_MAX} characters")
    if "" in (column.name for column in columns):
        raise BadSetting("a column without a name; name every column in the first line")


def row_record(table: Table, place: str, cells: Sequence[str], now_ms: int) -> tuple[str, bytes] | None:
    """The user and the record of a row; None for a row that changes nothing.

    The record's id makes a repeated row do nothing. For attributes it is the row's `place`, which names the import and
    the row, so that another import sets them again; for an event it is what the row says, so that no event is counted
    again, neither by another import nor in a corrected file.

    Raises:
        BadInput: why the row cannot be used, with the column as its field.
    """
    if len(cells) != len(table.columns):
        raise BadInput("bad_row", "", f"{len(cells)} cells, the first line has {len(table.columns)}")
    values: dict[str, JSONValue] = {}
    for column, cell in zip(table.columns, cells, strict=True):
        if column.field and cell:
            values[column.field] = _value(column, cell)
    user = values.pop(USER, None)
    if not isinstance(user, str):
        raise BadInput("missing_user", table.columns[table.user].name, "blank; every row names its user")
    if table.kind == "attributes" and not values:
        return None
    value = to_json(_object(table, place, user, values))
    rejected = read_record(None, value, now_ms).rejected
    if rejected:
        raise BadInput(rejected[0].reason, rejected[0].field, rejected[0].detail)
    return user, value


def _object(table: Table, place: str, user: str, values: dict[str, JSONValue]) -> dict[str, JSONValue]:
    if table.kind == "attributes":
        return {"type": "attributes", USER: user, "id": f"csv:{place}", **values}
    head = {field: values.pop(field, "") for field in _EVENT_FIELDS}
    prefix = f"{head['name']}{_OF_EVENT}"
    properties = {
        field.removeprefix(prefix): value
        for field, value in values.items()
        if field.startswith(prefix) or _OF_EVENT not in field  # else a property of another event
    }
    event: dict[str, JSONValue] = {"type": "event", USER: user, **head, "properties": properties}
    return {**event, "id": f"csv:{blake2b(to_json(event), digest_size=_ID_BYTES).hexdigest()}"}


def _value(column: Column, cell: str) -> JSONValue:
    """A cell as its column's type. Raises BadInput where it is not of that type."""
    if not cell.isprintable() and any("\ud800" <= char <= "\udfff" for char in cell):
        raise BadInput("invalid_utf8", column.name, "not UTF-8; save the file as UTF-8")
    if column.type == "number":
        if _NUMBER.fullmatch(cell) is None:
            raise _mismatch(column, cell)
        return float(cell) if "." in cell else int(cell)
    if column.type == "boolean":
        if cell.lower() not in _BOOLEANS:
            raise _mismatch(column, cell)
        return _BOOLEANS[cell.lower()]
    if column.type == "time":
        try:
            return format_time(parse_time(cell))
        except ValueError:
            raise _mismatch(column, cell) from None
    return cell


def _mismatch(column: Column, cell: str) -> BadInput:
    fix = f"--map {column.name}={column.field}:text takes it as it is"
    return BadInput("wrong_type", column.name, f"{cell[:40]!r} is no {column.type}; {fix}")
