"""Import of CSV files: into a real node, stopped anywhere, with bounded memory and errors that harm nobody."""

import asyncio
import csv
import tracemalloc
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.node import Node
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
