"""The disks under a process's folders: looked at every second, so that the door stops before one is full."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from config import metrics
from config.settings import Settings
from streams.errors import OutsideFailing
from streams.policy.disk import DiskMark

LOOK_S: Final = 1.0

Probe = Callable[[Path], tuple[int, int]]


def free_and_total(path: Path) -> tuple[int, int]:
    """Bytes that this process may still use, and bytes in all, of the filesystem under a path."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


class Disk:
    """Whether any of the filesystems that a process writes to is low."""

    def __init__(self, settings: Settings, probe: Probe = free_and_total) -> None:
        """`probe` tells what is free and what is in all, in bytes."""
        self._mark = DiskMark(settings.disk_free_bytes_min, settings.disk_free_share_min)
        exports = settings.exports_folder
        self._folders = {"data": settings.data, "outbox": settings.outbox_folder}
        self._folders |= {"exports": exports} if exports else {}
        self._probe = probe
        self._low: frozenset[str] = frozenset()
        self._log = structlog.get_logger("headrace")

    def is_low(self) -> bool:
        """Whether one was low at the last look."""
        return bool(self._low)

    def refuse_if_low(self) -> None:
        """Raise OutsideFailing while a disk is low, for whoever would add to the log."""
        if self._low:
            metrics.LIMIT_HITS.labels("append_disk_low").inc()
            where = ", ".join(str(self._folders[name]) for name in sorted(self._low))
            raise OutsideFailing(f"the disk under {where} is nearly full; free some of it, then send again")

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Sample every folder's filesystem, off the loop, since a network disk may hang."""
        low = set()
        for name, folder in self._folders.items():
            free_bytes, total_bytes = await asyncio.to_thread(self._probe, _existing(folder))
            metrics.DISK_FREE_BYTES.labels(name).set(free_bytes)
            if self._mark.is_low(free_bytes, total_bytes, was_low=name in self._low):
                low.add(name)
        for name in sorted(low - self._low):
            metrics.LIMIT_HITS.labels("disk_low").inc()
            self._log.warning("disk low, the door takes nothing", folder=name)
        for name in sorted(self._low - low):
            self._log.info("disk free again", folder=name)
        self._low = frozenset(low)
        metrics.DISK_LOW.set(bool(low))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    while not folder.exists():
        folder = folder.absolute().parent
    return folder
