"""Backups of a running node: whole, verified, and restored without a message that may have gone out already."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from fastavro import reader

from agents import backup as backups
from agents import backup_folder
from agents.backup_folder import MANIFEST, read_manifest, verify
from agents.node import Node
from agents.restore import restore
from channels.webhook import CHANNEL as WEBHOOK
from config.clock import ManualClock
from config.settings import Settings, load_settings
from streams.errors import BadSetting, BadState, OutsideFailing
from streams.exports import decode_row
from streams.times import HOUR_MS
from tables.partition import UsersView
from tables.restored import Hold
from tests.agents.nodes import (
    NOW_MS,
    PARTITIONS,
    ask,
    environment,
    event,
    free_port,
    process,
    records,
    running,
    send,
    until,
    write_workspace,
)

MAIL = {"to": "{{ ${email_address} }}", "subject": "Hi", "text": "Hello {{ ${user_id} }}"}
LIKE = {"event": {"name": "like"}}
FILES: dict[str, Any] = {
    "segments/fans.yaml": {"name": "fans", "filter": {"event": {"name": "like", "at_least": 2, "within": "1h"}}},
    "campaigns/now.yaml": {"name": "now", "trigger": LIKE, "channel": "email", "message": MAIL},
    "campaigns/later.yaml": {"name": "later", "trigger": LIKE, "delay": "2h", "channel": "email", "message": MAIL},
}
HOOK = {"body": "{{ ${user_id} }}"}
FILES["campaigns/now.yaml"]["re_eligible_after"] = "0s"


def settings_of(data: Path, **more: object) -> Settings:
    """The settings of a small node on a folder."""
    return load_settings(environment(data, **more))


def address(user: str) -> dict[str, str]:
    """The record that gives a user an address."""
    return {"type": "attributes", "external_id": user, "email": f"{user}@b.c"}


def rows(node: Node) -> dict[str, bytes]:
    """Every user's row, as stored."""
    view = UsersView(node.store)
    return {user: row for partition in range(PARTITIONS) for user, row in view.raw(partition)}


def mails(data: Path) -> int:
    """How many mails went into the outbox."""
    return (data / "outbox/email.mbox").read_bytes().count(b"\nX-Headrace-Dispatch: ")


def made(folder: Path) -> list[Path]:
    """What a restore to `new` has left there."""
    return list(folder.glob("new*"))


def exported(data: Path) -> list[str]:
    """The id of every exported record."""
    found = []
    for path in data.glob("exports/event_type=*/date=*/*.avro"):
        with path.open("rb") as file:
            found += [str(row["id"]) for row in reader(file) if isinstance(row, dict)]
    return found


async def test_a_backup_under_load_is_the_state_of_one_moment(tmp_path: Path) -> None:
    """Restored and run on, a backup taken amid events equals a node that got just the events which its log holds."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    old, new, fresh = tmp_path / "old", tmp_path / "new", tmp_path / "fresh"
    async with running(old, workspace=workspace) as node:
        await process(node, *[address(f"u{number}") for number in range(40)])

        sent, is_over = 0, asyncio.Event()

        async def load() -> None:
            nonlocal sent
            while not is_over.is_set():
                await send(node, event(f"u{sent % 40}", count=sent))
                sent += 1
                await asyncio.sleep(0.001)

        loading = asyncio.create_task(load())
        await until(lambda: node.queries.totals()["custom_events"] > 100)
        await node.export.flush()
        told = await ask(node, "backup", folder=str(tmp_path / "backup"))
        await asyncio.sleep(0.05)
        is_over.set()
        await loading
        await node.quiesce()
        assert node.queries.totals()["custom_events"] == sent
    manifest = read_manifest(tmp_path / "backup")
    assert (told["files"], manifest.made_ms) == (len(manifest.files), NOW_MS)

    await restore(settings_of(new), ManualClock(NOW_MS), tmp_path / "backup", hold="none")
    async with running(new, workspace=workspace) as node:
        await node.quiesce()
        await node.export.flush()
        events = [json.loads(record.value) for _, record in await records(node, "events")]
        mine = rows(node)
        assert 100 < node.queries.totals()["custom_events"] < sent
    async with running(fresh, workspace=workspace) as node:
        await process(node, *events)
        await node.export.flush()
        theirs = rows(node)
    assert mine == theirs
    assert len(exported(new)) == len(set(exported(new)))
    assert sorted(exported(new)) == sorted(exported(fresh))
    verify(tmp_path / "backup", manifest)  # a node that runs on what was restored leaves the backup alone


async def test_export_files_of_a_backup_are_those_of_its_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files from just before the checkpoint are in the backup, later ones are not, and no record is lost or twice."""
    workspace, loop = write_workspace(tmp_path / "workspace", FILES), asyncio.get_running_loop()
    old, new, rest = tmp_path / "old", tmp_path / "new", backups._rest
    async with running(old, workspace=workspace) as node:
        settle = node.store.settle

        async def publish(*users: str) -> None:
            await process(node, *map(event, users))
            await node.export.flush()

        def settling() -> None:
            settle()
            asyncio.run_coroutine_threadsafe(publish("bob", "cid"), loop).result()

        def resting(*args: Any) -> dict[str, Any]:
            asyncio.run_coroutine_threadsafe(publish("dan", "eva"), loop).result()
            return rest(*args)

        await publish("ann")
        monkeypatch.setattr(node.store, "settle", settling)
        monkeypatch.setattr(backups, "_rest", resting)
        await ask(node, "backup", folder=str(tmp_path / "backup"))
    await restore(settings_of(new), ManualClock(NOW_MS), tmp_path / "backup")
    in_backup = exported(tmp_path / "backup")
    async with running(new, workspace=workspace) as node:
        await process(node, event("fay"))
        await node.export.flush()
        ids = sorted(str(decode_row(record.value)["id"]) for _, record in await records(node, "currents"))
    assert sorted(exported(new)) == ids
    assert set(in_backup) < set(ids)


@pytest.mark.parametrize(("hold", "sent"), [("unkeyed", 0), ("all", 0), ("none", 3)])
async def test_mails_of_the_lost_time_wait_for_an_operator(tmp_path: Path, hold: Hold, sent: int) -> None:
    """Open, unread and due before the restore: nothing of it goes out again unasked, and all of it if asked."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    old, new, clock = tmp_path / "old", tmp_path / "new", ManualClock(NOW_MS)
    async with running(old, clock, workspace=workspace) as node:
        await process(node, address("ann"))
        await node.delivery.rest()
        await send(node, event("ann"))
        await until(lambda: node.queries.sends().get("now", {}).get("pending") == 1)
        node.engine.slices.paused = True
        await send(node, event("ann"))
        await ask(node, "backup", folder=str(tmp_path / "backup"))
        node.engine.slices.paused = False
        node.delivery.go_on()
        clock.advance(3 * HOUR_MS)
        await until(lambda: mails(old) == 3)  # both likes, and the one that waited two hours

    told = await restore(settings_of(new), clock, tmp_path / "backup", hold=hold)
    assert told["held"] == (0 if hold == "none" else 1)
    async with running(new, clock, workspace=workspace) as node:
        await until(lambda: sum(sum(states.values()) for states in node.queries.sends().values()) == 3)
        await node.quiesce()
        assert mails(new) == sent
        held = await ask(node, "dispatches", state="held")
        assert len(held) == 3 - sent
        assert {row["reason"].partition(":")[0] for row in held} <= {"uncertain"}
        clock.advance(1)
        await process(node, event("ann"))  # decided after the restore: the original cannot have sent it
        await until(lambda: mails(new) == sent + 1)
        assert await ask(node, "release", dispatch_id="*") == 3 - sent
        await until(lambda: mails(new) == 4)


async def test_events_sent_again_are_held_as_long_as_told(tmp_path: Path) -> None:
    """Whoever puts events of the lost time into the log again gets their mails held, under the ids they had."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    old, new, clock = tmp_path / "old", tmp_path / "new", ManualClock(NOW_MS)
    async with running(old, clock, workspace=workspace) as node:
        await process(node, address("ann"))
        await ask(node, "backup", folder=str(tmp_path / "backup"))
        await process(node, event("ann"))
        [sent] = await ask(node, "dispatches", state="sent")
    clock.advance(HOUR_MS)
    await restore(settings_of(new), clock, tmp_path / "backup", hold_for_ms=HOUR_MS)
    clock.advance(HOUR_MS // 2)
    async with running(new, clock, workspace=workspace) as node:
        await process(node, event("ann"))
        [held] = await ask(node, "dispatches", state="held")
    assert held["dispatch_id"] == sent["dispatch_id"]
    assert mails(new) == 0


async def test_webhooks_of_the_lost_time_are_called_again_under_their_key(tmp_path: Path) -> None:
    """An endpoint sees each webhook's key again, with the same bytes, and can tell that it is a repeat."""
    calls: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        calls.append((request.headers["Idempotency-Key"], await request.read()))
        return web.Response()

    port = free_port()
    site = web.Application()
    site.router.add_post("/", take)
    runner = web.AppRunner(site)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    hook = {"name": "hook", "trigger": LIKE, "channel": WEBHOOK.name, "message": HOOK, "re_eligible_after": "0s"}
    workspace = write_workspace(tmp_path / "workspace", {"campaigns/hook.yaml": hook})
    more = {"webhook_url": f"http://127.0.0.1:{port}/", "http_allow": "127.0.0.0/8"}
    clock = ManualClock(NOW_MS)
    async with running(tmp_path / "old", clock, workspace=workspace, **more) as node:
        node.engine.slices.paused = True
        await send(node, event("ann"), event("ann"))
        await ask(node, "backup", folder=str(tmp_path / "backup"))
        node.engine.slices.paused = False
        await node.quiesce()
    first, calls = calls, []
    clock.advance(HOUR_MS)
    await restore(settings_of(tmp_path / "new", **more), clock, tmp_path / "backup")
    async with running(tmp_path / "new", clock, workspace=workspace, **more) as node:
        await node.quiesce()
    await runner.cleanup()
    assert len({key for key, _ in first}) == 2
    assert sorted(first) == sorted(calls)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _rewrite(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(msgspec.json.encode(document | changes))


HARMS: dict[str, Callable[[Path], object]] = {
    "a bit in the state": lambda folder: _flip(max((folder / "db").glob("*.sst"))),
    "a bit in the outbox": lambda folder: _flip(folder / "outbox/email.mbox"),
    "a shorter file": lambda folder: (folder / "outbox/email.mbox").write_bytes(b""),
    "a missing file": lambda folder: min((folder / "db").glob("*.sst")).unlink(),
    "a bit in the manifest": lambda folder: _flip(folder / MANIFEST),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "another time": lambda folder: _rewrite(folder, made_ms=1),
    "a newer format": lambda folder: _rewrite(folder, format=2),
    "a path that leads out": lambda folder: _rewrite(folder, files=[["../secret", 1, ""]]),
    "another app": lambda folder: _rewrite(folder, app="other"),
}


@pytest.fixture
async def backup(tmp_path: Path) -> Path:
    """A backup of a node that has sent a mail."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    async with running(tmp_path / "old", workspace=workspace) as node:
        await process(node, address("ann"), event("ann"))
        await ask(node, "backup", folder=str(tmp_path / "backup"))
    return tmp_path / "backup"


async def test_a_damaged_backup_is_refused_and_leaves_nothing(backup: Path, tmp_path: Path) -> None:
    """Whatever is wrong with a backup, restoring says so and makes no folder."""
    for name, harm in HARMS.items():
        broken = tmp_path / name.replace(" ", "-")
        shutil.copytree(backup, broken)
        harm(broken)
        with pytest.raises((BadSetting, BadState), match=broken.name):
            await restore(settings_of(tmp_path / "new"), ManualClock(NOW_MS), broken)
        assert not made(tmp_path), name


async def test_a_manifest_beyond_its_bound_is_not_read(backup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else's file of any size under that name takes no memory."""
    monkeypatch.setattr(backup_folder, "MANIFEST_BYTES_MAX", 10)
    with pytest.raises(BadSetting, match="no backup of ours"):
        read_manifest(backup)


async def test_nothing_that_exists_is_overwritten(backup: Path, tmp_path: Path) -> None:
    """Neither a data folder with anything in it, nor a folder that a backup was to be made in, is touched."""
    before = sorted((tmp_path / "old").rglob("*"))
    with pytest.raises(BadSetting, match="holds something already"):
        await restore(settings_of(tmp_path / "old"), ManualClock(NOW_MS), backup)
    with pytest.raises(BadSetting, match="set both"):
        await restore(settings_of(tmp_path / "new", partitions=3), ManualClock(NOW_MS), backup)
    assert sorted((tmp_path / "old").rglob("*")) == before
    async with running(tmp_path / "old") as node:
        with pytest.raises(BadSetting, match="exists"):
            await ask(node, "backup", folder=str(backup))
    verify(backup, read_manifest(backup))


async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while the backup is written is told, the half of it is gone, and the node goes on."""
    async with running(tmp_path / "data") as node:
        await process(node, event("ann"))

        def full(path: Path, copy: Path) -> None:
            raise OSError(28, "No space left on device", str(copy))

        monkeypatch.setattr(backups, "_copy", full)
        with pytest.raises(OutsideFailing, match="No space left"):
            await ask(node, "backup", folder=str(tmp_path / "backup"))
        assert not (tmp_path / "backup").exists()
        await process(node, event("ann"))


async def test_export_files_of_the_lost_time_are_not_taken_over(backup: Path, tmp_path: Path) -> None:
    """Where exports lie elsewhere, files behind the backup's cursors stop the restore until somebody moves them."""
    exports = tmp_path / "warehouse"
    workspace = tmp_path / "workspace"
    more = {"exports": f"file://{exports}"}
    async with running(tmp_path / "live", ManualClock(NOW_MS), workspace=workspace, **more) as node:
        await process(node, event("ann"))
        await node.export.flush()
        await ask(node, "backup", folder=str(tmp_path / "early"))
        await process(node, event("bob"), event("ann"))
        await node.export.flush()
    with pytest.raises(BadSetting, match="files are of records that the backup has not"):
        await restore(settings_of(tmp_path / "new", **more), ManualClock(NOW_MS), tmp_path / "early")
    assert not made(tmp_path)


async def test_on_kafka_there_is_no_folder_to_back_up(tmp_path: Path) -> None:
    """Topics are the truth there, and both commands say what to do instead, before they connect to anything."""
    settings = settings_of(tmp_path / "new", broker="kafka://127.0.0.1:1")
    with pytest.raises(BadSetting, match="topics are the truth"):
        backups.refuse_on_kafka(settings)
    with pytest.raises(BadSetting, match="restores its folder from the topics"):
        await restore(settings, ManualClock(NOW_MS), tmp_path)
