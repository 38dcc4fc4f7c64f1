"""The data folder: one process, or one fleet, uses it at a time."""

import fcntl
import os
from pathlib import Path
from typing import Final

from streams.errors import BadSetting

PID_BYTES_MAX: Final = 16


class DataFolder:
    """The data folder, locked while this process uses it; the lock's file names the process."""

    def __init__(self, path: Path) -> None:
        """Create and lock it. Raises BadSetting, with its process id, when another process uses it."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._lock, PID_BYTES_MAX).decode("ascii", "replace").strip()
            os.close(self._lock)
            who = f"process {holder}" if holder else "another process"  # it has locked, and not written yet
            raise BadSetting(f"HEADRACE_DATA={path}: {who} uses this folder; stop it first") from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, b"%d\n" % os.getpid())

    def close(self) -> None:
        """Unlock; the name of this process goes first, for whoever looks later."""
        os.ftruncate(self._lock, 0)
        os.close(self._lock)
