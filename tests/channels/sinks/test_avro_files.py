"""Export files hold what was written, under the right name, and nothing else is taken for one."""

import asyncio
import struct
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.sinks import avro_files
from channels.sinks.avro_files import PIECE_ROWS, AvroFiles, Written
from streams.currents import custom_event, message, purchases, sessions
from streams.effects import CurrentsRecord
from streams.errors import BadState, OutsideFailing
from streams.events import CustomEvent, JSONValue, Purchase, Session
from streams.exports import ROWS_MAX, SCHEMAS, decode_row
from streams.mailbox import Cause, Outcome
from tests.channels.sinks.files import NOW_MS, Records, left_over, rows_in, values_of, views, write


def expected_row(record: CurrentsRecord) -> dict[str, Any]:
    """What a reader should see: every field of the schema, floats in 32 bits."""
    given_: dict[str, Any] = {**record.fields, "time": record.time_ms // 1000}
    if "price" in given_:
        given_["price"] = struct.unpack("f", struct.pack("f", given_["price"]))[0]
    fields: Any = SCHEMAS[record.event_type]["fields"]
    return {field["name"]: given_.get(field["name"]) for field in fields}


texts = st.text(max_size=12)
times_ms = st.integers(0, 2_000_000_000_000)
causes = st.builds(Cause, texts, st.integers(0, 9), st.integers(0, 2**53), st.integers(0, 75))
records_of_one_type = st.one_of(
    st.lists(
        st.builds(
            custom_event,
            texts,
            st.builds(CustomEvent, texts, times_ms, st.dictionaries(texts, texts, max_size=3)),
            causes,
        ),
        min_size=1,
    ),
    st.builds(
        purchases,
        texts,
        st.builds(
            Purchase,
            texts,
            texts,
            st.decimals(0, 10**9, places=2),
            st.integers(1, 100),
            times_ms,
            st.just({}),
        ),
        causes,
    ),
    st.lists(
        st.builds(
            lambda who, time_ms, address: message(
                who,
                campaign="win_back",
                channel="email",
                dispatch_id="d",
                outcome=Outcome("d", 1, "sent", time_ms, "", address),
            ),
            texts,
            times_ms,
            texts,
        ),
        min_size=1,
    ),
)


@settings(max_examples=60)
@given(records_of_one_type, st.integers(0, 2**40), st.lists(st.integers(1, 9), min_size=100))
def test_files_hold_what_went_in(records: list[CurrentsRecord], start: int, gaps: list[int]) -> None:
    """A reader of the file sees each record once, in order, with every field of the schema."""
    offsets = [start + sum(gaps[:index]) for index in range(len(records))]
    with TemporaryDirectory() as folder:
        sink = AvroFiles(Path(folder), "headrace")
        written = write(sink, list(zip(offsets, records, strict=True)), partition=5)
        assert written == Written(written.path, len(records), offsets[-1])
        assert list(sink.files()) == [written.path]
        assert rows_in(written.path) == [expected_row(record) for record in records]
        assert f"+5+{start:020d}.avro" in written.path.name
        assert left_over(Path(folder)) == []


def test_header(tmp_path: Path) -> None:
    """A file says in its header how it is compressed, what it is and which offsets it holds."""
    written = write(AvroFiles(tmp_path, "headrace"), [*views(2, 7), *views(1, 40)])
    with written.path.open("rb") as file:
        reader = fastavro.reader(file)
        assert reader.codec == "deflate"
        schema = reader.writer_schema
        assert isinstance(schema, dict)
        assert schema["name"] == "dataexport.S3.inner.users.behaviors.CustomEvent"
        marks = {key: reader.metadata[f"headrace.{key}"] for key in ("first_offset", "last_offset", "rows")}
    assert marks == {"first_offset": "7", "last_offset": "40", "rows": "3"}


def test_same_records_same_bytes(tmp_path: Path) -> None:
    """The same records give the same file to the byte, so a replay can be compared with the first run."""
    paths = [write(AvroFiles(tmp_path / name, "headrace"), views(450)).path for name in ("a", "b")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_full_file_is_compressed(tmp_path: Path) -> None:
    """A full file takes little more than what is random in its rows, so blocks are compressed and long."""
    written = write(AvroFiles(tmp_path, "headrace"), views(ROWS_MAX))
    hex_digits = 32 + 24  # of the two ids, which nothing can pack below half a byte each
    assert written.path.stat().st_size < 1.5 * ROWS_MAX * hex_digits / 2


def headed(schema: str) -> bytes:
    """An Avro file without rows whose header has that schema, a short one or of 1,000 characters."""
    length = {1_000: b"\xd0\x0f"}.get(len(schema)) or bytes([2 * len(schema)])
    return b"Obj\x01\x02\x16avro.schema" + length + schema.encode() + b"\x00" + b"s" * 16


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no avro",
        b"Obj\x01",
        headed("{"),
        headed("{}"),
        headed("5"),
        headed('"unheard"'),
        headed('{"type":"record","name":"a","fields":[5]}'),
        headed("[" * 1_000),
        headed('"int"'),
    ],
)
def test_foreign_file_stops(tmp_path: Path, content: bytes) -> None:
    """A file of that name that is no export file is neither trusted nor overwritten."""
    path = write(AvroFiles(tmp_path, "headrace"), views(1)).path
    path.write_bytes(content)
    with pytest.raises(BadState, match="no export file of ours"):
        write(AvroFiles(tmp_path, "headrace"), views(1))
    assert path.read_bytes() == content


@given(st.data())
@settings(max_examples=60)
def test_damaged_header_never_escapes(data: st.DataObject) -> None:
    """However a header is damaged, the answer is a takeover or BadState, never another error."""
    with TemporaryDirectory() as folder:
        sink = AvroFiles(Path(folder), "headrace")
        path = write(sink, views(2)).path
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.booleans())
        content[at] = data.draw(st.integers(0, 255))
        path.write_bytes(content[:at] if cut else content)
        with suppress(BadState):
            assert write(sink, views(2)).existed


@pytest.mark.parametrize(
    "change",
    [
        {"headrace.first_offset": "-1"},
        {"headrace.last_offset": "0"},
        {"headrace.rows": "0"},
        {"headrace.rows": "4"},
        {"headrace.rows": "many"},
        {"headrace.rows": None},
        {"headrace.first_record": "00" * 16},
    ],
)
def test_metadata_that_does_not_fit_stops(tmp_path: Path, change: dict[str, str | None]) -> None:
    """A file whose marks contradict its name, themselves or the log is not taken for the records' file."""
    path = write(AvroFiles(tmp_path, "headrace"), views(3)).path
    with path.open("rb") as file:
        reader = fastavro.reader(file)
        rows, schema = list(reader), reader.writer_schema
        marks = {**reader.metadata, **change}
    with path.open("wb") as file:
        kept = {key: value for key, value in marks.items() if key.startswith("headrace.") and value is not None}
        fastavro.writer(file, schema, rows, metadata=kept)
    with pytest.raises(BadState):
        write(AvroFiles(tmp_path, "headrace"), views(3))


def test_other_life_of_the_log_stops(tmp_path: Path) -> None:
    """A file of the same name whose first record is another is not mistaken for already written."""
    sink = AvroFiles(tmp_path, "headrace")
    write(sink, views(2))
    anew = [(0, custom_event("someone", CustomEvent("view", NOW_MS, {}), Cause("t", 0, 0, 0)))]
    with pytest.raises(BadState, match="another life"):
        write(sink, anew)


CAUSE = Cause("t", 0, 0, 0)
PURCHASE = purchases("u1", Purchase("p", "EUR", Decimal(1), 1, NOW_MS, {}), CAUSE)[0]


def session(external_id: str, event: Session) -> CurrentsRecord:
    """The record of a session that is not the first."""
    return sessions(external_id, event, CAUSE, {}, is_first=False)[0]


START = Session(started=True, time_ms=NOW_MS)
END = Session(started=False, time_ms=NOW_MS)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [(1, session("u1", START)), (2, session("u1", END))],
        [(2, PURCHASE), (2, PURCHASE)],
        [(2, PURCHASE), (1, PURCHASE)],
        [(0, CurrentsRecord("../../../tmp/evil", 0, {}))],
        [(0, CurrentsRecord("users.behaviors.Purchase", 0, {"id": "x"}))],
        [(0, CurrentsRecord("users.behaviors.Purchase", 0, {**PURCHASE.fields, "price": None}))],
        [(0, CurrentsRecord("users.behaviors.Purchase", 0, {**PURCHASE.fields, "ad_id": 7}))],
    ],
)
def test_records_that_are_no_file(tmp_path: Path, records: Records) -> None:
    """Records that cannot be one file stop the writer and leave nothing behind."""
    sink = AvroFiles(tmp_path, "headrace")
    with pytest.raises(BadState):
        write(sink, records)
    assert list(sink.files()) == []
    assert left_over(tmp_path) == []


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """An exports folder that cannot be made is reported with its path."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutsideFailing, match="file/exports"):
        AvroFiles(tmp_path / "file" / "exports", "headrace")


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Something of that name that the disk will not read is reported with its path, not overwritten."""
    path = write(AvroFiles(tmp_path, "headrace"), views(1)).path
    path.unlink()
    path.mkdir()
    with pytest.raises(OutsideFailing, match=path.name.replace("+", r"\+")):
        write(AvroFiles(tmp_path, "headrace"), views(1))


async def test_loop_is_never_stalled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two turns of the event loop at most one piece is encoded, and all of them are."""
    encoded = 0

    def counted(value: bytes) -> dict[str, JSONValue]:
        nonlocal encoded
        encoded += 1
        return decode_row(value)

    values = values_of(views(2_050))
    monkeypatch.setattr(avro_files, "decode_row", counted)
    sink = AvroFiles(tmp_path, "headrace")
    writing = asyncio.create_task(sink.write("users.behaviors.CustomEvent", values, 0))
    seen, steps = 0, []
    while not writing.done():
        await asyncio.sleep(0)
        steps.append(encoded - seen)
        seen = encoded
    assert (await writing).rows == 2_050
    assert sum(steps) == 2_050 + 1  # the first names the file
    assert max(steps) <= PIECE_ROWS


def test_files_are_listed_in_order(tmp_path: Path) -> None:
    """The listing gives every finished file once, sorted, and none that is unfinished."""
    sink = AvroFiles(tmp_path, "headrace")
    paths = [write(sink, views(2, start), partition).path for start in (300, 20) for partition in (1, 0)]
    paths.append(write(sink, [(5, PURCHASE)]).path)
    (tmp_path / ".tmp" / "unfinished.avro").write_bytes(b"x")
    assert list(sink.files()) == sorted(paths)
