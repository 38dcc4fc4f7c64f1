"""The data folder: one process, or one fleet, uses it at a time."""

import fcntl
import os
from pathlib import Path

from streams.errors import BadSetting


class DataFolder:
    """The data folder, locked while this process uses it."""

    def __init__(self, path: Path) -> None:
        """Create and lock it. Raises BadSetting when another process uses it."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BadSetting(f"HEADRACE_DATA={path}: another process uses this folder; stop it first") from None

    def close(self) -> None:
        """Unlock."""
        os.close(self._lock)
