"""Tables of users and events: what columns are taken for, and the record of each row."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.csv_table import Kind, plan_table, read_mapping, row_record
from streams.errors import BadInput, BadSetting
from streams.ingest.raw_record import read_record

NOW_MS = 1_800_000_000_000
DIGEST = "0" * 24


def records(text: str, kind: Kind = "attributes", maps: tuple[str, ...] = ()) -> list[object]:
    """What each row of a CSV text becomes: its object, None, or the reason and column of its refusal."""
    header, *rows = list(csv.reader(io.StringIO(text)))
    table = plan_table(kind, header, rows, read_mapping(maps))
    found: list[object] = []
    for number, cells in enumerate(rows, 1):
        try:
            made = row_record(table, f"{DIGEST}:{number}", cells, NOW_MS)
        except BadInput as error:
            found.append((error.reason, error.field))
        else:
            found.append(None if made is None else json.loads(made[1]))
    return found


def test_attributes_are_typed_by_their_column_and_blanks_change_nothing() -> None:
    """A column is a number, a boolean or a time if all its cells are; ids and standard fields stay text."""
    assert records(
        "external_id,phone,n,vip,zip,since\n1,+49301,3,true,01234,2026-01-02\n2,+49302,-4.5,FALSE,9,2026-01-02T03:04:05+02:00\n3,,,,,\n"
    ) == [
        {
            "type": "attributes",
            "external_id": "1",
            "id": f"csv:{DIGEST}:1",
            "phone": "+49301",
            "n": 3,
            "vip": True,
            "zip": "01234",
            "since": "2026-01-02T00:00:00.000Z",
        },
        {
            "type": "attributes",
            "external_id": "2",
            "id": f"csv:{DIGEST}:2",
            "phone": "+49302",
            "n": -4.5,
            "vip": False,
            "zip": "9",
            "since": "2026-01-02T01:04:05.000Z",
        },
        None,
    ]


def test_events_take_the_properties_of_their_own_name_and_those_of_all() -> None:
    """`<event>.properties.<name>` belongs to that event only; another column belongs to every event."""
    text = (
        "external_id,name,time,liked.properties.article,shop\nmel,liked,2026-01-02,a7,x\nmel,bought,2026-01-02,a8,y\n"
    )
    first, second = records(text, "events")
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert (first["properties"], second["properties"]) == ({"article": "a7", "shop": "x"}, {"shop": "y"})


def test_an_events_id_is_what_it_says() -> None:
    """In a corrected file an event has the id that it had, wherever it stands; another event has another."""
    head, row, other = "external_id,name,time,shop\n", "mel,liked,2026-01-02,x\n", "mel,liked,2026-01-02,y\n"
    ids = [record["id"] for record in records(head + row + other, "events") if isinstance(record, dict)]
    again = [record["id"] for record in records(head + other + row, "events") if isinstance(record, dict)]
    assert ids == again[::-1]
    assert len(set(ids)) == len(ids)


def test_a_row_that_cannot_be_used_names_its_column() -> None:
    """Each refusal says why and where, and no other row suffers."""
    text = "external_id,email,n,b\n,a@b.cc,1,true\nx,nonsense,1,true\ny,,one,true\nz,,1,perhaps\nw,,1\nv,,1,true\n"
    *refused, taken = records(text, maps=("n=n:number", "b=b:boolean"))
    assert refused == [
        ("missing_user", "external_id"),
        ("bad_value", "email"),
        ("wrong_type", "n"),
        ("wrong_type", "b"),
        ("bad_row", ""),
    ]
    assert isinstance(taken, dict)


@pytest.mark.parametrize(
    ("text", "maps", "says"),
    [
        ("id,email\n", (), "external_id"),
        ("external_id,a,b\n", ("a=b",), "two columns fill 'b'"),
        ("external_id,braze_id\n", (), "braze_id"),
        ("external_id,type\n", (), "type"),
        ("external_id,a\n", ("c=d",), "no such column"),
        ("external_id,\n", (), "without a name"),
        ("external_id,a\n", ("a",), "COLUMN=FIELD"),
        ("external_id,a\n", ("a=b:float",), "COLUMN=FIELD"),
    ],
)
def test_a_header_that_cannot_be_imported_is_refused(text: str, maps: tuple[str, ...], says: str) -> None:
    """Nothing of a file is sent when its columns cannot be understood, and the message names the column."""
    with pytest.raises(BadSetting, match=says):
        records(text, maps=maps)


CELLS = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8))
def test_what_is_made_of_any_row_is_taken_by_intake(rows: list[tuple[str, str, str]]) -> None:
    """Whatever stands in the cells, a row is refused here or read there, as the user's attributes alone."""
    table = plan_table("attributes", ["external_id", "first_name", "free"], rows, {})
    for number, cells in enumerate(rows, 1):
        try:
            made = row_record(table, f"{DIGEST}:{number}", cells, NOW_MS)
        except BadInput:
            continue
        if made is not None:
            reading = read_record(None, made[1], NOW_MS)
            assert [routed.user for routed in reading.routed] == [cells[0]]
            assert not reading.rejected
