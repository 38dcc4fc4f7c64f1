"""What a disk does: full, failing, and cut short by a power loss."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

from streams.errors import HeadraceError
from tests.chaos.inside import SYNCED
from tests.chaos.life import SPENT_S, Fault, busy, spent
from tests.chaos.session import GONE, PART_S, Session, Subject

ATTACH_S_MAX: Final = 10.0
LET_THROUGH_MAX: Final = 20
"""Of the first calls, before the disk refuses."""


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


@asynccontextmanager
async def _failing(subject: Subject, calls: str, error: str, first: int, paths: list[str]) -> AsyncIterator[None]:
    """From the n-th of these calls on the disk answers an error, for these paths or for all, until the life ends."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-p", str(subject.pid), "-o", "/dev/null"),
        *(word for path in paths for word in ("-P", path)),
        *("-e", f"trace={calls}", "-e", f"inject={calls}:error={error}:when={first}+"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        await subject.end(signal.SIGKILL)
        async with asyncio.timeout(ATTACH_S_MAX):
            await tracer.wait()  # it ends with what it traces


def _log_fails(call: str, error: str) -> Fault:
    """The disk under the log refuses: the product must end by itself, and what it had not kept is not there."""

    async def befall(one: Session, subject: Subject) -> bool:
        await subject.start()
        was_busy = await busy(one, subject)
        paths = [str(path) for path in one.data.glob("db/*.log")]
        async with _failing(subject, call, error, one.dice.randint(1, LET_THROUGH_MAX), paths):
            ended_itself = await spent(one, subject)
            code = await subject.end(signal.SIGKILL)
        return was_busy and ended_itself and code == 1

    return befall


def _export_fails(calls: str, error: str) -> Fault:
    """The disk under the export files refuses: `flush` says so, or the product ends; later the file is there, once."""

    async def befall(one: Session, subject: Subject) -> bool:
        await subject.start()
        was_busy = await busy(one, subject)
        deadline = time.monotonic() + SPENT_S
        async with _failing(subject, calls, error, one.dice.randint(1, 4), []):
            while not subject.has_ended and time.monotonic() < deadline:
                try:
                    await one.feed()
                    await one.ask("flush")
                except HeadraceError:
                    return was_busy
                except GONE:
                    await asyncio.sleep(PART_S)
        return was_busy and subject.has_ended and time.monotonic() < deadline

    return befall


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
    "fault: disk full under the log (ENOSPC)": _log_fails("write", "ENOSPC"),
    "fault: disk fails under the log (EIO)": _log_fails("write", "EIO"),
    "fault: disk full under an export (ENOSPC)": _export_fails("link,linkat", "ENOSPC"),
    "fault: disk fails under an export (EIO)": _export_fails("fsync", "EIO"),
}
SYNCED_ONLY: Final[dict[str, Fault]] = {
    "fault: sync of the log fails (EIO)": _log_fails("fdatasync", "EIO"),
}
"""On Kafka nothing of ours syncs the log."""


def disk_faults(transport: str) -> dict[str, Fault]:
    """What a disk can do to a transport here."""
    if not can_trace():
        return DISK
    return DISK | TRACED | (SYNCED_ONLY if transport == "embedded" else {})
