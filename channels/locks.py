"""Who holds the lock of a file, as far as the system tells."""

import os
from pathlib import Path
from typing import BinaryIO, Final

_TABLE: Final = Path("/proc/locks")
_STOPPED: Final = ("T", "t")


def holder_of(file: BinaryIO) -> str:
    """The process that holds the file's flock, and whether it is stopped, in words for an error."""
    inode = str(os.fstat(file.fileno()).st_ino)
    try:
        rows = [line.split() for line in _TABLE.read_text("ascii").splitlines()]
    except OSError:
        return "another process"
    for row in rows:  # `1: FLOCK ADVISORY WRITE <pid> <device>:<inode> 0 EOF`; those who wait have a `->` in it
        if row[1] == "FLOCK" and row[5].rpartition(":")[2] == inode:
            return _words(row[4])
    return "another process"


def _words(pid: str) -> str:
    """`process 12`, and its state if it is stopped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return f"process {pid}"
    return f"process {pid}, which is stopped (SIGSTOP)," if state in _STOPPED else f"process {pid}"
