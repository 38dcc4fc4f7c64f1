"""Folders that older versions wrote are read and go on; those of newer versions are refused.

`folders/v1.tar.xz` holds a data folder and its workspace, as commit 19ca30c left them after: six users' addresses, one
`like` of each, an undecodable record, a purchase of `a`, files linked, and one more `like` of `a`, all at NOW_MS on
two partitions. RocksDB's own text log and Faust's empty folder were left out.

`folders/v2.tar.xz` holds one as commit e239d62 left it when it was killed: ten users who like, each with a mail (three
between attempt and outcome at `smtp`, seven waiting), a webhook that failed once and is to be retried, and a log line
due after two hours; a segment being built over them, two of nine users of one partition decided; two events unread.
"""

import tarfile
from pathlib import Path

import pytest

from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from streams.errors import BadState
from streams.profiles.row import decode_row, encode_row, new_user
from tables.format import FORMAT
from tests.agents.nodes import NOW_MS, PARTITIONS, environment, event, process, running, until

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def unpacked(name: str, folder: Path) -> Path:
    """A stored folder, below another."""
    with tarfile.open(Path(__file__).parent / "folders" / f"{name}.tar.xz") as packed:
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on; later ones warn where none is named
            packed.extraction_filter = tarfile.data_filter
        packed.extractall(folder)  # our own archive
    return folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The first folder, unpacked."""
    return unpacked("v1", tmp_path)


async def test_an_old_folder_is_read_and_goes_on(old: Path) -> None:
    """Rows, positions, counts, sends, cursors and dead letters are there, timers fire, and nothing is done twice."""
    clock = ManualClock(NOW_MS + 1)
    async with running(old / "data", clock, workspace=old / "workspace") as node:
        totals = node.queries.totals()
        assert (totals["users"], totals["custom_events"], totals["purchases"]) == (6, 7, 1)
        assert (totals["dead_letters"], totals["export"]) == (1, {"files": 3, "rows": 7})
        assert node.queries.sends()["hi"] == {"sent": 7}
        await node.quiesce()
        assert await node.behind() == 0
        assert node.queries.segments()["fresh"]["now"] == 6
        lines = (old / "data/outbox/log.jsonl").read_bytes()

        clock.advance(2 * HOUR_MS + 1)  # the window closes after one hour, the delay ends after two
        await until(lambda: node.queries.sends()["later"].get("sent") == 6)
        await process(node, event("a"))
        assert node.queries.totals()["custom_events"] == 8
        assert node.queries.segments()["fresh"]["now"] == 1
        await node.export.flush()
        assert node.queries.totals()["export"]["rows"] > 7
    assert (old / "data/outbox/log.jsonl").read_bytes().startswith(lines)
    assert (old / "data/outbox/log.jsonl").read_bytes().count(b"\n") == 8
    assert (old / "data/outbox/email.mbox").read_bytes().count(b"\nX-Headrace-Dispatch: ") == 6


async def test_what_was_under_way_in_an_old_folder_goes_on(tmp_path: Path) -> None:
    """Open dispatches in every state, timers, a scan in progress and unread events of another version come to ends."""
    folder = unpacked("v2", tmp_path)
    clock = ManualClock(NOW_MS + 1)
    async with running(folder / "data", clock, workspace=folder / "workspace") as node:
        # What smtp was attempting is held, for nothing is set up that could say what became of it.
        await until(lambda: node.queries.sends()["mail"].get("held") == 3)
        await until(lambda: node.queries.sends()["mail"].get("sent") == 7)
        await until(lambda: all(row["ended"] for row in node.queries.scans()))
        await until(lambda: node.queries.totals()["custom_events"] == 12)
        assert node.queries.totals()["users"] == 11
        assert node.queries.segments()["fans"]["now"] == 11  # those of before, by the scan, and one by an event
        assert node.queries.segments()["fresh"]["now"] == 11
        clock.advance(MINUTE_MS)
        await until(lambda: node.queries.sends()["hook"].get("sent") == 11)
        clock.advance(2 * HOUR_MS)
        await until(lambda: node.queries.sends()["later"].get("sent") == 11)
        assert node.queries.segments()["fresh"]["now"] == 0
        assert await node.ask("release", {"dispatch_id": "*"}) == 3
        await node.quiesce()
        assert node.queries.sends()["mail"] == {"sent": 10, "aborted": 1}
    outbox = folder / "data/outbox"
    assert (outbox / "email.mbox").read_bytes().count(b"\nX-Headrace-Dispatch: ") == 10
    assert (outbox / "webhook.jsonl").read_bytes().count(b"\n") == 11
    assert (outbox / "log.jsonl").read_bytes().count(b"\n") == 11


async def test_the_old_log_is_still_read_beside_the_new(old: Path) -> None:
    """Records from before chunks counted their bytes are read back with those after, without a seam."""
    async with running(old / "data", ManualClock(NOW_MS + 1), workspace=old / "workspace") as node:
        await process(node, event("a"))
        for at in range(PARTITIONS):
            end = node.engine.transport.end("events", at)
            found = await node.engine.transport.look("events", at, 0, 100)
            assert [record.offset for record in found] == list(range(end))


def test_a_newer_folder_is_refused(tmp_path: Path) -> None:
    """A format from the future stops the start and says what to do."""
    settings = load_settings(environment(tmp_path))
    node = Node(settings, ManualClock(NOW_MS))
    batch = node.store.batch()
    batch.put("meta", b"format", str(FORMAT + 1).encode())
    node.store.write(batch)
    node.close()
    with pytest.raises(BadState, match=f"format {FORMAT + 1}, this program knows up to {FORMAT}"):
        Node(settings, ManualClock(NOW_MS))


def test_a_newer_row_is_refused() -> None:
    """A row from the future is no row that this program may write back."""
    user = new_user(NOW_MS)
    user.version += 1
    with pytest.raises(BadState, match="knows up to"):
        decode_row(encode_row(user))
