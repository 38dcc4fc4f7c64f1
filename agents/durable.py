"""Files that a power cut leaves whole, or as they were."""

import os
from pathlib import Path
from typing import Final

HALF: Final = ".part"


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that only its owner reads, whole or not at all; blocks for two fsyncs, so call it in a thread.

    A crash may leave a half of it beside, whose name ends in `.part`; the next write of the file takes its place.
    """
    half = path.with_name(f"{path.name}{HALF}")
    half.unlink(missing_ok=True)
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
