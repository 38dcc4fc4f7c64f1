"""`POST /users/import`: a CSV file over HTTP, each row once, in bounded memory, with its refused rows to fetch."""

import asyncio
import errno
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from agents.web import imports, uploads
from agents.web.key_ring import make_key
from config.clock import SystemClock
from config.settings import load_settings
from streams.records import Output
from tests.agents.nodes import environment, free_port, records

FULL = "the-full-key"
ROWS = 3_000


class Sender:
    """Somebody with a file."""

    def __init__(self, node: Node, session: aiohttp.ClientSession) -> None:
        self.node = node
        self._session = session

    async def call(
        self, method: str, path: str, body: object = None, key: str = FULL, kind: str = "text/csv"
    ) -> tuple[int, Any]:
        url, headers = f"http://{self.node.settings.http}{path}", {"Authorization": f"Bearer {key}"}
        if body is not None:
            headers["Content-Type"] = kind
        async with self._session.request(method, url, data=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def send(self, body: object, query: str = "") -> tuple[int, Any]:
        return await self.call("POST", f"/users/import{query}", body)

    async def done(self, import_id: str) -> dict[str, Any]:
        while True:
            status, said = await self.call("GET", f"/users/import/{import_id}")
            assert status == 200
            if said["state"] != "running":
                await self.node.quiesce()
                return dict(said)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def sender(folder: Path) -> AsyncIterator[Sender]:
    """A running node with a door."""
    node = Node(load_settings(environment(folder, http=f"127.0.0.1:{free_port()}", api_key=FULL)), SystemClock())
    node.wire(door=True)
    await node.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Sender(node, session)
    finally:
        await node.stop()


def users(rows: int = ROWS) -> bytes:
    """Users with a subscription state each, every tenth of which is none."""
    lines = ["external_id,first_name,email_subscribe,visits"]
    lines += [f"u{n},User {n},{'maybe' if n % 10 == 0 else 'opted_in'},{n}" for n in range(rows)]
    return "\n".join(lines).encode()


async def test_a_file_is_imported_and_its_refused_rows_can_be_fetched(tmp_path: Path) -> None:
    """Rows are in the users' rows with their subscription states; the others are named; nothing of the file is left."""
    async with sender(tmp_path) as someone:
        _, said = await someone.send(users())
        found = await someone.done(said["import_id"])
        assert (found["state"], found["rows"], found["refused"]) == ("done", ROWS, ROWS // 10)
        assert found["reasons"] == {"bad_value": ROWS // 10}
        eleven = someone.node.queries.user("u11")
        assert eleven is not None
        assert eleven["attributes"] == {"first_name": "User 11", "email_subscribe": "opted_in", "visits": 11}
        status, errors = await someone.call("GET", found["errors"])
        assert (status, len(errors.splitlines())) == (200, 1 + ROWS // 10)
        assert "email_subscribe" in errors.splitlines()[1]
        left = await asyncio.to_thread(lambda: [path.name for path in (tmp_path / "imports").rglob("*.csv")])
        assert left == [f"{said['import_id']}.csv.errors.csv"]


async def test_the_same_content_is_imported_once_unless_asked_again(tmp_path: Path) -> None:
    """The digest of the content is the import's name: sent again it is refused in the query's words, or made again."""
    async with sender(tmp_path) as someone:
        body = b"external_id,name,time\na,like,2025-01-01\nb,like,2025-01-02\n"
        status, said = await someone.send(body, "?as=events")
        assert (status, said["sent"]) == (200, 2)
        status, again = await someone.send(body, "?as=events")
        assert status == 400
        assert "again=true" in again["message"]
        assert str(tmp_path) not in again["message"]
        status, again = await someone.send(body, "?as=events&again=true")
        assert (status, again["import_id"]) == (200, said["import_id"])
        await someone.node.quiesce()
        assert someone.node.queries.totals()["custom_events"] == 2


async def test_a_dry_run_says_what_would_happen_and_sends_nothing(tmp_path: Path) -> None:
    """Columns, counts and refused rows of a dry run, under an id of its own; the import itself comes after it."""
    async with sender(tmp_path) as someone:
        status, said = await someone.send(users(20), "?dry_run=true&map=first_name%3Dlast_name")
        assert (status, said["sent"], said["usable"], said["refused"]) == (200, 0, 18, 2)
        assert {"name": "first_name", "field": "last_name", "type": "text"} in said["columns"]
        assert said["import_id"].endswith("-dry-run")
        assert (await someone.call("GET", said["errors"]))[0] == 200
        assert someone.node.queries.totals()["users"] == 0
        status, said = await someone.send(users(20), "?map=first_name%3Dlast_name")
        assert (status, said["sent"]) == (200, 18)


async def test_an_import_that_a_stop_cut_off_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, the next process does the rest, and each event counts once."""
    body = b"external_id,name,time\n" + b"".join(b"u%d,like,2025-01-01\n" % n for n in range(ROWS))
    monkeypatch.setattr(imports, "ANSWER_S", 0.01)
    async with sender(tmp_path) as someone:
        status, said = await someone.send(body, "?as=events")
        assert status in (200, 202)
    async with sender(tmp_path) as someone:
        found = await someone.done(said["import_id"])
        assert (found["state"], found["sent"]) == ("done", ROWS)
        assert someone.node.queries.totals()["custom_events"] == ROWS


@pytest.mark.parametrize("begun", [False, True])
async def test_an_import_made_again_goes_on_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool
) -> None:
    """Whether it waited for its turn or was in the middle of its rows: the next process does it, and only once."""
    body, appended, reached = users(), 0, asyncio.Event()
    monkeypatch.setattr(imports, "ANSWER_S", 0.01)
    async with sender(tmp_path) as someone:
        _, said = await someone.send(body)
        first = await someone.done(said["import_id"])
        before = await kept_ms(tmp_path, said["import_id"])
        straight = someone.node.log.append

        async def append(outputs: list[Output]) -> None:
            nonlocal appended
            appended += 1
            if appended > begun:
                reached.set()
                await asyncio.Event().wait()
            await straight(outputs)

        monkeypatch.setattr(someone.node.log, "append", append)
        if not begun:  # another file has its turn
            assert (await someone.send(b"external_id,first_name\nv,Ann"))[0] == 202
        assert (await someone.send(body, "?again=true"))[0] == 202
        await reached.wait()
        middle = await kept_ms(tmp_path, said["import_id"])
        assert (middle != before) == begun
    async with sender(tmp_path) as someone:
        found = await someone.done(said["import_id"])
        after = await kept_ms(tmp_path, said["import_id"])
    assert (found["state"], found["sent"], "error" in found) == ("done", first["sent"], False)
    assert after != before
    assert not begun or after == middle


async def kept_ms(folder: Path, import_id: str) -> int:
    """When the import began that is known of a file."""
    path = folder / f"imports/{import_id}.csv.progress.json"
    return int(json.loads(await asyncio.to_thread(path.read_text, "utf-8"))["began_ms"])


@pytest.mark.parametrize("torn", [b"", b'{"kind":"attri', b'{"kind":"others","map":[]}'])
async def test_a_note_that_cannot_be_read_bars_no_start(tmp_path: Path, torn: bytes) -> None:
    """Half of what was asked of a file, or a later version's: the process serves; the file sent again is imported."""
    body = b"external_id,first_name\nu,Ann"
    digest = blake2b(body, digest_size=12).hexdigest()
    folder = tmp_path / "imports"
    await asyncio.to_thread(folder.mkdir, parents=True)
    await asyncio.to_thread((folder / f"{digest}.csv").write_bytes, body)
    await asyncio.to_thread((folder / f"{digest}.csv.wanted.json").write_bytes, torn)
    async with sender(tmp_path) as someone:
        assert (await someone.call("GET", f"/users/import/{digest}"))[0] == 404
        status, said = await someone.send(body)
        assert (status, said["sent"], said["import_id"]) == (200, 1, digest)
    left = await asyncio.to_thread(lambda: sorted(path.name for path in folder.iterdir()))
    assert left == [f"{digest}.csv.progress.json"]


async def test_what_was_asked_of_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk is full at that moment the file is not taken, nothing of it is left, and a second try is."""
    real, full = os.fsync, True

    def fsync(descriptor: int) -> None:
        if full and ".wanted.json" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    async with sender(tmp_path) as someone:
        status, said = await someone.send(users(20))
        assert (status, "No space" in said["message"]) == (503, True)
        left = await asyncio.to_thread(lambda: [path.name for path in (tmp_path / "imports").glob("*.csv*")])
        assert [name for name in left if not name.endswith(".part")] == []
        full = False
        assert (await someone.send(users(20)))[0] == 200


async def test_one_import_for_all_who_send_a_file_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two who send the same content at the same moment are told of one import, whose rows are in the log once."""
    monkeypatch.setattr(imports, "ANSWER_S", 10.0)
    both, saved = asyncio.Event(), 0

    async def save_and_count(*args: Any) -> Path:
        nonlocal saved
        path = await uploads.save(*args)
        saved += 1
        if saved == 2:
            both.set()
        return path

    async with sender(tmp_path) as someone:
        straight = someone.node.log.append

        async def append(outputs: list[Output]) -> None:
            await both.wait()
            await straight(outputs)

        monkeypatch.setattr(imports, "save", save_and_count)
        monkeypatch.setattr(someone.node.log, "append", append)
        answers = await asyncio.gather(*(someone.send(users(20)) for _ in range(2)))
        assert [status for status, _ in answers] == [200, 200]
        assert [said["sent"] for _, said in answers] == [18, 18]
        await someone.node.quiesce()
        assert len(await records(someone.node, "events")) == 18


async def test_what_is_no_import_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong key or scope, an unknown parameter, no column of users, groups, a form, too large, and unknown ids."""
    monkeypatch.setitem(imports.BYTES_MAX, "attributes", 10_000)
    async with sender(tmp_path) as someone:
        track, told = make_key("track", ["users.track"])
        await someone.node.key_ring.create(**told)
        assert (await someone.call("POST", "/users/import", b"x", key="wrong"))[0] == 401
        assert (await someone.call("POST", "/users/import", b"x", key=str(track["key"])))[0] == 403
        for body, query, word in (
            (b"external_id\n1", "?kind=events", "kind"),
            (b"external_id\n1", "?as=purchases", "purchases"),
            (b"external_id\n1", "?dry_run=perhaps", "dry_run"),
            (b"external_id\n1", "?map=x", "map"),
            (b"name\n1", "", "external_id"),
            (b"", "", "first line"),
            (b"external_id,subscription_state\na,subscribed", "", "email_subscribe"),
        ):
            status, said = await someone.send(body, query)
            assert (status, word in said["message"]) == (400, True), said
        with aiohttp.MultipartWriter() as form:
            form.append(b"external_id\n1")
        status, said = await someone.call("POST", "/users/import", form, kind="multipart/form-data; boundary=x")
        assert (status, "form" in said["message"]) == (400, True)
        assert (await someone.send(users(1_000)))[0] == 413
        for path in ("0" * 24, "../api-key.sha256", "0" * 24 + "/errors", "x/errors"):
            assert (await someone.call("GET", f"/users/import/{path}"))[0] == 404
        assert not list((tmp_path / "imports").rglob("*.csv"))
        assert not list((tmp_path / "imports").rglob("*.part"))


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A body of sixteen megabytes is taken in pieces: what is held at a time is a few of them."""

    async def body() -> AsyncIterator[bytes]:
        yield b"external_id,note\n"
        for _ in range(256):
            yield b"".join(b"u,%s\n" % (b"x" * 1_000) for _ in range(64))

    async with sender(tmp_path) as someone:
        tracemalloc.start()
        try:
            status, _ = await someone.send(body(), "?dry_run=true")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert status in (200, 202)
        assert most < 12 * 1024 * 1024
