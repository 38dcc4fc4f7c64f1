"""Backup: the folder of a node on the embedded log, copied while it runs, as of one moment."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agents import signing
from agents.backup_folder import MANIFEST, File, Manifest, describe, write_manifest
from agents.web.keys import FILE_NAME
from config.clock import Clock
from config.settings import Settings
from streams.errors import BadSetting, OutsideFailing
from streams.exports import place_of_file
from streams.times import format_time
from tables.cursors import Cursors, read_cursors
from tables.store import Store

DATABASE: Final = "db"
OUTBOX: Final = "outbox"
EXPORTS: Final = "exports"


async def back_up(settings: Settings, store: Store, clock: Clock, folder: Path) -> dict[str, Any]:
    """Make a backup in a new folder; the node goes on meanwhile, and its loop is not held up.

    The database is as of one moment. Export files are those that were there just before it, and of later ones those
    that its cursors call written; the outbox is as it was just after: so no cursor lacks its file, no file holds a
    record that the log does not, and nothing that is known as sent is missing in the outbox. Both only where they lie
    in the data folder.

    Returns:
        {"folder": …, "made": …, "files": n, "bytes": n}.

    Raises:
        BadSetting: on Kafka, or the folder exists.
        OutsideFailing: the disk refuses; what was written is removed.
    """
    refuse_on_kafka(settings)
    _make(folder)
    try:
        return await _fill(settings, store, clock, folder)
    except OSError as error:
        raise OutsideFailing(f"{error.filename or folder}: {error.strerror}; nothing is left of the backup") from error
    finally:
        await asyncio.to_thread(_clear, folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise BadSetting(f"{folder} exists; name a folder that does not") from None
    except OSError as error:
        raise OutsideFailing(f"{folder}: {error.strerror}") from error


def _clear(folder: Path) -> None:
    """Remove what did not become a backup."""
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)


def refuse_on_kafka(settings: Settings) -> None:
    """Raise BadSetting where a data folder is not what has to be kept."""
    if settings.on_kafka:
        raise BadSetting(
            "on Kafka the topics are the truth, and a data folder is a copy that is restored from them: back up the "
            "cluster's topics instead (docs/RUNNING.md, Backup)"
        )


async def _fill(settings: Settings, store: Store, clock: Clock, folder: Path) -> dict[str, Any]:
    before = await asyncio.to_thread(lambda: list(_exports(settings)))
    await asyncio.to_thread(store.settle)
    made_ms = clock.now_ms()
    store.checkpoint(folder / DATABASE)
    # Nothing is awaited between: these are the cursors of the checkpoint.
    cursors = [read_cursors(store, partition) for partition in range(settings.partitions)]
    return await asyncio.to_thread(_rest, settings, folder, before, cursors, made_ms)


def _rest(settings: Settings, folder: Path, before: list[Path], cursors: list[Cursors], made_ms: int) -> dict[str, Any]:
    """Everything beside the database, then the manifest; `before` are the export files from before the checkpoint."""
    if settings.exports_folder is not None:
        exports = {path.relative_to(settings.exports_folder) for path in before}
        since = {path.relative_to(settings.exports_folder) for path in _exports(settings)} - exports
        exports |= {path for path in since if _is_called_written(str(path), settings.app, cursors)}
        for path in sorted(exports):
            _link(settings.exports_folder / path, folder / EXPORTS / path)
    for path in sorted(settings.outbox_folder.glob("*")) if _is_own(settings, settings.outbox_folder) else ():
        _copy(path, folder / OUTBOX / path.name)
    for name in (FILE_NAME, signing.FILE_NAME):
        if (settings.data / name).exists():
            _copy(settings.data / name, folder / name)
    files = [describe(folder, path) for path in sorted(folder.rglob("*")) if path.is_file()]
    write_manifest(folder, Manifest(made_ms, settings.app, settings.partitions, files))
    return {"folder": str(folder), "made": format_time(made_ms), "files": len(files), "bytes": _bytes(files)}


def _exports(settings: Settings) -> Iterator[Path]:
    """The finished export files, where they lie in the data folder; nobody changes them."""
    folder = settings.exports_folder
    if folder is not None and _is_own(settings, folder):
        yield from folder.glob("event_type=*/date=*/*.avro")


def _is_called_written(path: str, app: str, cursors: list[Cursors]) -> bool:
    """Whether the cursors are behind an export file: after a restore nobody would write it again."""
    place = place_of_file(path, app)
    if place is None or place[1] >= len(cursors):
        return False
    event_type, partition, offset = place
    return offset <= cursors[partition].last.get(event_type, -1)


def _is_own(settings: Settings, folder: Path) -> bool:
    return folder.absolute().is_relative_to(settings.data.absolute())


def _link(path: Path, copy: Path) -> None:
    """A second name for a file that nobody changes, or its bytes where the backup is on another filesystem.

    A warehouse may have taken it away since it was listed.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy.hardlink_to(path)
    except FileNotFoundError:
        return
    except OSError:
        _copy(path, copy)


def _copy(path: Path, copy: Path) -> None:
    """The bytes of a file that may grow meanwhile; an entry cut in the middle is cut off at the next start."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    copy.chmod(0o600)
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes(files: list[File]) -> int:
    return sum(file.size for file in files)
