"""Restore: a data folder from a backup, in which nothing that may have gone out since goes out again unasked."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any, Final

from agents.backup_folder import Manifest, inside, read_manifest, verify
from agents.delivery.held import hold_open
from agents.delivery.uncertain import holds, uncertain
from agents.node import Node
from config.clock import Clock
from config.settings import Settings
from streams.errors import BadSetting, OutsideFailing
from streams.exports import place_of_file
from streams.times import format_time
from tables.cursors import read_cursors
from tables.restored import Hold, Restored, stage_restored

STAGING: Final = ".restoring"
FILES_NAMED: Final = 3


async def restore(
    settings: Settings, clock: Clock, folder: Path, *, hold: Hold = "unkeyed", hold_for_ms: int = 0
) -> dict[str, Any]:
    """Make `settings.data` of the backup in `folder`. It must not exist, or be empty; it appears whole or not at all.

    Args:
        settings: of the node that will run, with the app, partitions and exports of the one that was backed up.
        clock: tells the moment of the restore.
        folder: the backup; it stays as it is.
        hold: which dispatches wait for an operator, among those that were open in the backup or are decided
            for a time up to now: the original may have sent them since. `unkeyed`: all but webhooks over HTTP,
            which are called again with the same key.
        hold_for_ms: so much longer, for those who put events of the lost time into the log once more.

    Returns:
        {"data": …, "backup": time, "users": n, "held": n, "uncertain_until": time}.

    Raises:
        BadSetting: the folder is in use or no backup, or app and partitions are others, or the exports folder
            holds files of records that the backup has not.
        BadState: the backup is damaged.
    """
    manifest = await asyncio.to_thread(_check, settings, folder)
    staging = settings.data.absolute().with_name(settings.data.absolute().name + STAGING)
    try:
        await asyncio.to_thread(_copy, folder, manifest, staging)
        mark = Restored(manifest.made_ms, clock.now_ms() + hold_for_ms, hold)
        found = await _mark(settings, clock, mark, staging)
        await asyncio.to_thread(_appear, staging, settings.data)
    except OSError as error:
        raise OutsideFailing(f"{error.filename or staging}: {error.strerror}") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
    backup, until = format_time(mark.backup_ms), format_time(mark.until_ms)
    return {"data": str(settings.data), "backup": backup, **found, "uncertain_until": until}


def _check(settings: Settings, folder: Path) -> Manifest:
    if settings.on_kafka:
        raise BadSetting(
            f"HEADRACE_BROKER={settings.broker}: on Kafka a worker restores its folder from the topics by itself; "
            "a backup of the embedded log is restored with embedded://, and then moved with `move`"
        )
    if settings.data.exists() and (not settings.data.is_dir() or any(settings.data.iterdir())):
        raise BadSetting(f"HEADRACE_DATA={settings.data}: holds something already; name a folder that does not exist")
    manifest = read_manifest(folder)
    if (settings.app, settings.partitions) != (manifest.app, manifest.partitions):
        raise BadSetting(
            f"{folder}: made with HEADRACE_APP={manifest.app} and HEADRACE_PARTITIONS={manifest.partitions}; set both"
        )
    verify(folder, manifest)
    return manifest


def _copy(folder: Path, manifest: Manifest, staging: Path) -> None:
    """Bytes, not links: the backup must not change when the node goes on."""
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    for file in manifest.files:
        copy = staging / file.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(inside(folder, file.path), copy)
        copy.chmod(0o600)


async def _mark(settings: Settings, clock: Clock, mark: Restored, staging: Path) -> dict[str, int]:
    """Hold what is open, and note until when nobody knows what was sent."""
    node = Node(settings.model_copy(update={"data": staging}), clock)
    try:
        await node.connect()
        _refuse_later_exports(settings, node)
        held = await hold_open(node.engine, lambda channel: holds(mark, channel, settings), uncertain(mark))
        batch = node.store.batch()
        stage_restored(batch, mark)
        node.store.write(batch)
        await node.engine.transport.sync()
        return {"users": int(node.queries.totals()["users"]), "held": held}
    finally:
        await node.disconnect()


def _refuse_later_exports(settings: Settings, node: Node) -> None:
    """Files of the lost time would be taken for those of the records that come in their place."""
    folder = settings.exports_folder
    if folder is None or folder.is_relative_to(settings.data):
        return
    cursors = [read_cursors(node.store, partition) for partition in range(settings.partitions)]
    later = []
    for path in sorted(folder.glob("event_type=*/date=*/*.avro")):
        place = place_of_file(str(path.relative_to(folder)), settings.app)
        if place is not None and place[1] < settings.partitions:
            event_type, partition, offset = place
            if offset > cursors[partition].last.get(event_type, -1):
                later.append(path)
    if later:
        names = ", ".join(map(str, later[:FILES_NAMED]))
        raise BadSetting(
            f"HEADRACE_EXPORTS: {len(later)} files are of records that the backup has not ({names}, …); "
            "move them away, and tell whoever read them, or export to another folder"
        )


def _appear(staging: Path, data: Path) -> None:
    """The folder under its own name, for good. Raises BadSetting if somebody has put something there meanwhile."""
    for path in (*staging.rglob("*"), staging):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    try:
        staging.rename(data.absolute())
    except OSError as error:
        raise BadSetting(f"HEADRACE_DATA={data}: somebody has put something there meanwhile ({error})") from error
