"""Sessions: the points of a plan are hit and what came out is verified; a planted bug is hunted until it is found."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from pathlib import Path

from tests.chaos.faults import faults_of
from tests.chaos.planted import BUGS
from tests.chaos.points import points_of
from tests.chaos.result import Result
from tests.chaos.session import Session, Subject, session

TRIES_MAX = 3
HUNTS_MAX = 6
HUNT_KILLS = 6


async def hit(one: Session, subject: Subject, name: str, dice: random.Random, result: Result) -> None:
    """One hit of a point; the call is chosen nearer to the first at every try that misses."""
    fault = faults_of(one.transport).get(name)
    if fault is not None:
        for _ in range(TRIES_MAX):
            result.kills += 1
            if await fault(one, subject):
                result.hits[one.transport, name] += 1
                return
            print(f"{one.folder.name}: missed {name}", file=sys.stderr, flush=True)
        return
    point = points_of(one.transport)[name]
    for attempt in range(TRIES_MAX):
        call = dice.randint(1, max(1, point.calls_max >> (2 * attempt)))
        result.kills += 1
        if await one.live(subject, name, call, stops=point.stops):
            result.hits[one.transport, name] += 1
            return


async def cover(where: Path, names: list[str], seed: int, broker: str, result: Result) -> None:
    """Hit these points, each as often as it is named, in one session, and verify it."""
    dice, began = random.Random(seed), time.monotonic()
    async with session(where, seed, broker) as (one, subject):
        for name in names:
            await hit(one, subject, name, dice, result)
        hit_s = time.monotonic() - began
        verdict = await one.verdict(subject)
    result.add(verdict, f"{where.name}, seed {seed}")
    took = f"{len(names)} hits in {hit_s:.0f} s, verdict after {time.monotonic() - began - hit_s:.0f} s"
    print(f"{where.name}: {took}, {one.work.words}: {verdict.faults or 'verified'}", file=sys.stderr, flush=True)
    if not verdict.faults:
        await asyncio.to_thread(shutil.rmtree, where)


async def hunt(where: Path, name: str, seed: int, broker: str, result: Result) -> None:
    """Plant a bug, and see whether the verifier finds it, in a session that was hit at all, or the product tells it."""
    dice, ignored, told_by = random.Random(seed), Result(), BUGS[name].told_by
    for number in range(HUNTS_MAX):
        folder = where.with_name(f"{where.name}-{number}")
        async with session(folder, seed + number, broker, name) as (one, subject):
            for _ in range(HUNT_KILLS):
                await hit(one, subject, dice.choice(BUGS[name].points), dice, ignored)
            verdict = await one.verdict(subject)
        await asyncio.to_thread(shutil.rmtree, folder)
        is_told = bool(told_by) and any(told_by in fault for fault in verdict.faults)
        if verdict.faults and (ignored.hits or is_told):
            result.found[name] = verdict.faults[0]
            print(f"planted {name}: found, {verdict.faults[0][:150]}", file=sys.stderr, flush=True)
            return
    result.faults.append(f"planted {name}: not found")
    print(result.faults[-1], file=sys.stderr, flush=True)
