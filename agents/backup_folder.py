"""A backup as a folder: what it must hold, and how it is known to be whole."""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec

from agents.durable import sync_folder
from streams.errors import BadSetting, BadState

FORMAT: Final = 1
MANIFEST: Final = "backup.json"
MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024


class File(msgspec.Struct, frozen=True, array_like=True):
    """One file: its path below the folder, its size and the BLAKE2b digest of its bytes."""

    path: str
    size: int
    digest: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself. It is written last: a folder without one is none.

    `digest` is that of all other fields.
    """

    made_ms: int
    app: str
    partitions: int
    files: list[File]
    format: int = FORMAT
    digest: str = ""


class _Version(msgspec.Struct):
    """The one field that every format has."""

    format: int


_encode: Final = msgspec.json.Encoder(order="deterministic").encode


def describe(folder: Path, path: Path) -> File:
    """A file's entry; reads all of it, so call it in a thread."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "blake2b")
        os.fsync(file.fileno())
        return File(str(path.relative_to(folder)), file.tell(), digest.hexdigest())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the folder a backup, for good."""
    whole = msgspec.structs.replace(manifest, digest=_digest(manifest))
    with (folder / MANIFEST).open("xb") as file:
        file.write(_encode(whole))
        file.flush()
        os.fsync(file.fileno())
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync_folder(inner)


def read_manifest(folder: Path) -> Manifest:
    """What the backup in a folder says of itself.

    Raises:
        BadSetting: there is no whole backup, or one of a newer program.
    """
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        if size > MANIFEST_BYTES_MAX:
            raise BadSetting(f"{path}: {size} bytes, no backup of ours has more than {MANIFEST_BYTES_MAX} there")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadSetting(f"{folder}: no backup, or one that was not finished: it has no {MANIFEST}") from None
    try:
        version = msgspec.json.decode(data, type=_Version).format
        if version > FORMAT:
            raise BadSetting(f"{path}: format {version}, this program knows up to {FORMAT}; use the newer program")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{path}: damaged ({error}); use another backup") from None
    if manifest.digest != _digest(manifest):
        raise BadSetting(f"{path}: damaged: it is not what was written; use another backup")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Read every file of a backup and hold it to the manifest; call it in a thread.

    Raises:
        BadState: a file is missing, or is not what was written.
    """
    for wanted in manifest.files:
        path = inside(folder, wanted.path)
        if not path.is_file():
            raise BadState(f"{path}: missing in the backup; use another one")
        if describe(folder, path) != wanted:
            raise BadState(f"{path}: damaged: its bytes are not those of the backup; use another one")


def inside(folder: Path, path: str) -> Path:
    """A file below the folder. Raises BadState for a path that leads elsewhere."""
    found = folder / path
    if Path(path).is_absolute() or ".." in Path(path).parts or found.is_symlink():
        raise BadState(f"{folder / MANIFEST}: {path!r} leads out of the backup; use another one")
    return found


def _digest(manifest: Manifest) -> str:
    return hashlib.blake2b(_encode(msgspec.structs.replace(manifest, digest=""))).hexdigest()
