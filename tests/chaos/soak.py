"""One long life under load: its memory and its open files, as the kernel tells them, must stay flat."""

from __future__ import annotations

import asyncio
import resource
import shutil
import signal
import statistics
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import Final, NamedTuple

from tests.chaos.result import Result
from tests.chaos.session import GONE, PART_S, Session, Subject, session

SOAK_S: Final = 240.0
WARM_SHARE: Final = 1 / 3
"""Of the life, which caches need to fill."""

SAMPLE_S: Final = 1.0
RISE_MIB_MAX: Final = 6.0
"""Per minute; the store's own buffers are kept small in this life, so that they are full early."""

HANDLES_MAX: Final = 16
MIB: Final = 1024 * 1024
MINUTE_S: Final = 60.0


class Sample(NamedTuple):
    """Resident bytes and open files at a time."""

    seconds: float
    resident: int
    handles: int


def sample(pid: int) -> Sample:
    """What /proc says of a process now; OSError when it is gone."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return Sample(time.monotonic(), pages * resource.getpagesize(), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))


def slope(points: list[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs: one jump, up or down, does not move it."""
    rises = [(later[1] - first[1]) / (later[0] - first[0]) for first, later in combinations(points, 2)]
    return statistics.median(rises) if rises else 0.0


def judge(samples: list[Sample]) -> list[str]:
    """What is not flat after the first third, in words."""
    warm = samples[int(len(samples) * WARM_SHARE) :]
    faults = []
    rise = slope([(each.seconds, each.resident / MIB) for each in warm]) * MINUTE_S
    if rise > RISE_MIB_MAX:
        faults.append(f"memory rises by {rise:.1f} MiB a minute, from {warm[0].resident / MIB:.0f} MiB")
    half = len(warm) // 2
    before, after = (max((each.handles for each in part), default=0) for part in (warm[:half], warm[half:]))
    if after > before + HANDLES_MAX:
        faults.append(f"open files rise from {before} to {after}")
    return faults


async def watch(one: Session, subject: Subject, seconds: float) -> list[Sample]:
    """Feed one life for so long, and look at it once a second."""
    await subject.start(inside="small_buffers")
    samples: list[Sample] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not subject.has_ended:
        try:
            await one.feed()
            await one.casting.go_on()
        except GONE:
            await asyncio.sleep(0.02)
            continue
        if not samples or time.monotonic() > samples[-1].seconds + SAMPLE_S:
            samples.append(sample(subject.pid))
        await asyncio.sleep(PART_S)
    await subject.end(signal.SIGTERM)
    return samples


async def soak(where: Path, seed: int, broker: str, seconds: float, result: Result) -> None:
    """A long life, judged and verified."""
    async with session(where, seed, broker) as (one, subject):
        samples = await watch(one, subject, seconds)
        verdict = await one.verdict(subject)
    verdict.faults += judge(samples)
    result.add(verdict, f"{where.name}, seed {seed}")
    ends = ", ".join(
        f"{each.resident / MIB:.0f} MiB {each.handles} files" for each in samples[:: len(samples) // 8 or 1]
    )
    print(f"{where.name}: {ends}: {verdict.faults or 'flat, verified'}", file=sys.stderr, flush=True)
    if not verdict.faults:
        await asyncio.to_thread(shutil.rmtree, where)
