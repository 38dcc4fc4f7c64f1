"""What a disk does: full, failing, and cut short by a power loss."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from typing import Any, Final

from tests.chaos.inside import SYNCED
from tests.chaos.life import Fault, busy, spent
from tests.chaos.session import Session, Subject

ATTACH_S_MAX: Final = 10.0
REFUSALS_FROM: Final = 20
"""The first calls that are let through, at most, before the disk refuses."""


@cache
def can_trace() -> bool:
    """Whether strace is here and may attach to a process; said once, loudly, if not."""
    with subprocess.Popen(("sleep", "30")) as asleep:
        try:
            found = shutil.which("strace") is not None and _attaches(asleep.pid)
        finally:
            asleep.kill()
    if not found:
        print("NO DISK IS MADE TO FAIL: strace is not installed or may not attach", file=sys.stderr, flush=True)
    return found


def _attaches(pid: int) -> bool:
    with subprocess.Popen(("strace", "-p", str(pid), "-o", "/dev/null"), stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        line = tracer.stderr.readline()
        tracer.terminate()
    return b"attached" in line


def _failing(calls: str, error: str, files: str) -> Fault:
    """From some call on the disk answers an error for these files; the product must end, and say nothing was kept."""

    async def fault(one: Session, subject: Subject) -> bool:
        await subject.start()
        was_busy = await busy(one, subject)
        paths = [str(path) for path in one.data.glob(files)] if files else []
        first = one.dice.randint(1, REFUSALS_FROM)
        tracer = await asyncio.create_subprocess_exec(
            *("strace", "-f", "-p", str(subject.pid), "-o", "/dev/null"),
            *(word for path in paths for word in ("-P", path)),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={first}+"),
            stderr=asyncio.subprocess.DEVNULL,
        )
        ended_itself = await spent(one, subject)
        code = await subject.end(signal.SIGKILL)
        async with asyncio.timeout(ATTACH_S_MAX):
            await tracer.wait()  # it ends with what it traces
        return was_busy and ended_itself and code == 1

    return fault


async def power_lost(one: Session, subject: Subject) -> bool:
    """Kill -9, and the write-ahead log is cut where the last sync of ours, or the kernel by itself, left it.

    What was acknowledged after that sync began may be gone with it; all that was sent or exported may not.
    """
    noted = one.folder / SYNCED
    noted.unlink(missing_ok=True)
    on_kafka = one.transport == "kafka"
    await subject.start(inside="" if on_kafka else "syncs_noted")
    was_busy = await busy(one, subject)
    await subject.end(signal.SIGKILL)
    told: dict[str, Any] = json.loads(noted.read_text()) if noted.exists() else {"began_s": 0.0, "sizes": {}}
    await asyncio.to_thread(_cut, one, told["sizes"])
    if not on_kafka:
        one.doubt_after(told["began_s"])
    return was_busy


def _cut(one: Session, sizes: dict[str, int]) -> None:
    for path in sorted((one.data / "db").glob("*.log")):
        size = path.stat().st_size
        kept = min(sizes.get(path.name, 0), size)
        os.truncate(path, one.dice.choice((kept, one.dice.randint(kept, size))))


DISK: Final[dict[str, Fault]] = {"fault: power loss": power_lost}
TRACED: Final[dict[str, Fault]] = {
    "fault: disk full under the log (ENOSPC)": _failing("write", "ENOSPC", "db/*.log"),
    "fault: disk fails under the log (EIO)": _failing("write", "EIO", "db/*.log"),
    "fault: disk full under an export (ENOSPC)": _failing("link,linkat", "ENOSPC", ""),
    "fault: disk fails under an export (EIO)": _failing("fsync", "EIO", ""),
}
SYNCED_ONLY: Final[dict[str, Fault]] = {
    "fault: sync of the log fails (EIO)": _failing("fdatasync", "EIO", "db/*.log"),
}
"""On Kafka nothing of ours syncs the log."""


def disk_faults(transport: str) -> dict[str, Fault]:
    """What a disk can do to a transport here."""
    if not can_trace():
        return DISK
    return DISK | TRACED | (SYNCED_ONLY if transport == "embedded" else {})
