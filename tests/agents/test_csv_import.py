"""Import of CSV files: into a real node, stopped anywhere, with bounded memory and errors that harm nobody."""

import asyncio
import csv
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.node import Node
from agents.web import csv_import
from agents.web.csv_import import Choices, import_csv
from config.clock import ManualClock
from streams.errors import BadSetting
from streams.events import JSONValue
from tests.agents.nodes import NOW_MS, process, running

USERS = 2_100
LIKES = 1_600
BYTES_PER_ROW_MAX = 400


class StopHereError(Exception):
    """The import is cut off."""


class Stopping:
    """A session that ends at some call: before the log has the batch, or after, when the answer is lost."""

    def __init__(self, node: Node, dice: Random, calls_max: int) -> None:
        self._node = node
        self._left = dice.randint(1, calls_max)
        self._after = dice.random() < 0.5

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        self._left -= command == "append"
        if not self._left and not self._after:
            raise StopHereError
        answer = await self._node.ask(command, args)
        if not self._left:
            raise StopHereError
        return answer


def users_file(folder: Path) -> Path:
    """Users with every seventh row unusable, semicolons between cells, and one byte that is no UTF-8."""
    lines = [b"external_id;first_name;visits"]
    lines += [b"u%d;User %d;%s" % (n, n, b"many" if n % 7 == 0 else b"%d" % n) for n in range(USERS)]
    lines[2] = b"u1;\xff;1"
    (folder / "users.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    return folder / "users.csv"


def likes_file(folder: Path) -> Path:
    """Events, some of them in two lines by a quoted line break."""
    with (folder / "likes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["external_id", "name", "time", "article"])
        writer.writerows([f"u{n % 50}", "liked", "2025-11-01", f"a\n{n}"] for n in range(LIKES))
    return folder / "likes.csv"


def rows_named(found: dict[str, Any]) -> list[int]:
    """The rows that the errors file of an import names."""
    with Path(found["errors"]).open(encoding="utf-8", newline="") as file:
        return [int(row["row"]) for row in csv.DictReader(file)]


async def whole(node: Node, path: Path, choices: Choices, dice: Random) -> dict[str, Any]:
    """Import a file, cut off again and again, until it is done."""
    while True:
        try:
            return await import_csv(Stopping(node, dice, 4), path, choices, ManualClock(NOW_MS), lambda _: None)
        except StopHereError:
            continue


@pytest.mark.parametrize("seed", range(3))
async def test_an_import_that_is_cut_off_anywhere_does_everything_once(tmp_path: Path, seed: int) -> None:
    """Whether a batch or its answer was lost: each event counts once, each row is sent or named once as refused."""
    dice = Random(seed)
    users, likes = users_file(tmp_path), likes_file(tmp_path)
    async with running(tmp_path / "data") as node:
        mapped = Choices("attributes", {"visits": ("visits", "number")})
        found = await whole(node, users, mapped, dice)
        counted = await whole(node, likes, Choices("events", {}), dice)
        await node.quiesce()
        totals = node.queries.totals()
        profile = node.queries.user("u8")

    assert (found["rows"], found["refused"]) == (USERS, found["refused"])
    refused = {n + 2 for n in range(USERS) if n % 7 == 0} | {3}
    assert rows_named(found) == sorted(refused)
    assert found["reasons"] == {"wrong_type": len(refused) - 1, "invalid_utf8": 1}
    assert found["sent"] == USERS - len(refused)
    assert (counted["sent"], counted["refused"], counted["errors"]) == (LIKES, 0, None)
    assert totals["custom_events"] == LIKES
    assert profile is not None
    assert profile["attributes"] == {"first_name": "User 8", "visits": 8}


async def test_a_finished_import_is_not_made_twice_by_mistake(tmp_path: Path) -> None:
    """The same file is refused until that is asked for, and then counts no event twice; a dry run keeps nothing."""
    path, clock = likes_file(tmp_path), ManualClock(NOW_MS)
    async with running(tmp_path / "data") as node:
        tried = await import_csv(None, path, Choices("events", {}), clock, lambda _: None)
        assert (tried["usable"], tried["sent"]) == (LIKES, 0)
        await import_csv(node, path, Choices("events", {}), clock, lambda _: None)
        with pytest.raises(BadSetting, match="--again"):
            await import_csv(node, path, Choices("events", {}), clock, lambda _: None)
        await import_csv(node, path, Choices("events", {}, again=True), clock, lambda _: None)
        await node.quiesce()
        assert node.queries.totals()["custom_events"] == LIKES


async def test_an_import_made_again_sets_attributes_again(tmp_path: Path) -> None:
    """With columns named rightly the second time, and over what somebody else has set since."""
    path, clock = tmp_path / "users.csv", ManualClock(NOW_MS)
    path.write_text("external_id,name\nu,Mel\n", "utf-8")
    async with running(tmp_path / "data") as node:
        for mapping, wanted in (({}, {"name": "Mel"}), ({"name": ("first_name", "")}, {"first_name": "Mel"})):
            clock.advance(1_000)
            await import_csv(node, path, Choices("attributes", mapping, again=True), clock, lambda _: None)
            await node.quiesce()
            found = node.queries.user("u")
            assert found is not None
            assert wanted.items() <= found["attributes"].items()
        await process(node, {"type": "attributes", "external_id": "u", "name": "Anna"})
        clock.advance(1_000)
        await import_csv(node, path, Choices("attributes", {}, again=True), clock, lambda _: None)
        await node.quiesce()
        found = node.queries.user("u")
        assert found is not None
        assert found["attributes"]["name"] == "Mel"


async def test_an_import_under_way_keeps_its_columns_and_its_errors(tmp_path: Path) -> None:
    """Other columns are refused until the import is begun anew, and a dry run in between touches nothing of it."""
    path, clock, dice = users_file(tmp_path), ManualClock(NOW_MS), Random(0)
    right = Choices("attributes", {"visits": ("visits", "number")})
    async with running(tmp_path / "data") as node:
        with pytest.raises(StopHereError):
            await import_csv(Stopping(node, dice, 2), path, right, clock, lambda _: None)
        tried = await import_csv(None, path, Choices("attributes", {}), clock, lambda _: None)
        assert tried["refused"] == 1
        with pytest.raises(BadSetting, match="other columns"):
            await import_csv(node, path, Choices("attributes", {}), clock, lambda _: None)
        found = await import_csv(node, path, right, clock, lambda _: None)
    assert len(rows_named(found)) == found["refused"] == len(set(rows_named(found)))


def test_a_cell_of_the_errors_file_is_no_formula(tmp_path: Path) -> None:
    """A column's name that a spreadsheet would compute is quoted, and the file is for its owner alone."""
    path = tmp_path / "users.csv"
    path.write_text("external_id,=HYPERLINK(1)\nu,x\n", "utf-8")
    choices = Choices("attributes", {"=HYPERLINK(1)": ("visits", "number")})
    found = asyncio.run(import_csv(None, path, choices, ManualClock(NOW_MS), lambda _: None))
    errors = Path(found["errors"])
    assert "'=HYPERLINK(1)" in errors.read_text("utf-8")
    assert not errors.stat().st_mode & 0o077


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A file eight times as long takes no more memory at its peak, give or take a batch."""
    peaks = []
    for rows in (1_000, 8_000):
        path = tmp_path / f"{rows}.csv"
        path.write_text("external_id,visits\n" + "".join(f"u{n},{n}\n" for n in range(rows)), "utf-8")
        tracemalloc.start()
        await import_csv(None, path, Choices("attributes", {}), ManualClock(NOW_MS), lambda _: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 500 * BYTES_PER_ROW_MAX


@pytest.mark.parametrize("hostile", ["commas", "no line end", "wide rows", "small cells", "open quote"])
async def test_memory_does_not_grow_with_what_a_row_holds(tmp_path: Path, hostile: str) -> None:
    """Tens of megabytes in one row, in no row, or at the head of the file are read in a part of that memory."""
    body = {
        "commas": "u,a,b\n" + "," * 30_000_000,
        "no line end": "x" * 60_000_000,
        "wide rows": f"u,a,{'x' * 75_000}\n" * 999,
        "small cells": "u,a,b\n" + ("xy," * 300_000 + "\n") * 33,
        "open quote": 'u,a,"b\n' + ("x" * 100_000 + "\n") * 300,
    }[hostile]
    path = tmp_path / "users.csv"
    path.write_text(f"external_id,name,note\n{body}", "utf-8")
    del body
    tracemalloc.start()
    try:
        await import_csv(None, path, Choices("attributes", {}), ManualClock(NOW_MS), lambda _: None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 64 * 1024 * 1024


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("longer", [-1, 0, 1, 2, 3, 1_500_000])
async def test_a_row_that_is_too_long_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, longer: int
) -> None:
    """Whatever ends a line, wherever the limit cuts it: that row is named with the limit, its neighbours are sent."""
    monkeypatch.setattr(csv_import, "ROW_CHARS_MAX", 240)
    long = "u2," + "x" * (240 - len("u2,") - len(end) + longer)
    path = tmp_path / "users.csv"
    path.write_bytes(end.join(["external_id,name", "u1,Ann", long, "u3,Cleo", "", "u5"]).encode())
    found = await import_csv(None, path, Choices("attributes", {}), ManualClock(NOW_MS), lambda _: None)
    too_long = [3] if longer > 0 else []
    assert rows_named(found) == [*too_long, 6]
    assert found["usable"] == 3 - len(too_long)
    assert found["reasons"] == ({"too_large": 1, "bad_row": 1} if too_long else {"bad_row": 1})
    errors = await asyncio.to_thread(Path(found["errors"]).read_text, "utf-8")
    assert ("more than 240 characters" in errors) == bool(too_long)


async def test_a_row_over_many_lines_is_one_row_of_limited_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of one quoted cell count together: below the limit they are its value, above it the next line is a row."""
    monkeypatch.setattr(csv_import, "ROW_CHARS_MAX", 240)
    path = tmp_path / "users.csv"
    for lines, reasons in ((20, {}), (34, {"too_large": 1, "bad_row": 11})):
        cell = '"' + "123456789\n" * lines + '"'
        path.write_text(f"external_id,name\nu2,Ben\nu1,{cell}\n", "utf-8")
        found = await import_csv(None, path, Choices("attributes", {}), ManualClock(NOW_MS), lambda _: None)
        assert found["reasons"] == reasons
        assert found["usable"] == (1 if reasons else 2)


def test_a_first_line_that_is_too_long_says_so(tmp_path: Path) -> None:
    """The names of the columns have the limit of a row, and the error names it."""
    path = tmp_path / "users.csv"
    path.write_text("external_id" + "," * 5_000_000 + "\nu,x\n", "utf-8")
    with pytest.raises(BadSetting, match=r"first line.*4,194,304 characters"):
        asyncio.run(import_csv(None, path, Choices("attributes", {}), ManualClock(NOW_MS), lambda _: None))


async def test_rows_that_are_sent_are_of_the_import_that_goes_on(tmp_path: Path) -> None:
    """Cut off before the first batch is answered, and done later: each of its records bears the same id again."""
    path, clock = tmp_path / "users.csv", ManualClock(NOW_MS)
    path.write_text("external_id,name\nu,Mel\n", "utf-8")
    sent: list[bytes] = []

    class Cut:
        async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
            if command == "append":
                sent.extend(output[3] for output in args["outputs"])
                if len(sent) == 1:
                    raise StopHereError
            return 1

    with pytest.raises(StopHereError):
        await import_csv(Cut(), path, Choices("attributes", {}), clock, lambda _: None)
    clock.advance(1_000)
    await import_csv(Cut(), path, Choices("attributes", {}), clock, lambda _: None)
    assert len(sent) == 2
    assert sent[0] == sent[1]
