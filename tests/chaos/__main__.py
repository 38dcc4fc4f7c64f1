"""`python -m tests.chaos`: kill the product at every crash point, verify what came out, find the planted bugs.

The last line on stdout is one JSON object. Exit code 0 only if everything was hit, verified and found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.broker.kafka import Broker
from tests.chaos.faults import faults_of
from tests.chaos.planted import BUGS
from tests.chaos.points import points_of
from tests.chaos.session import Session, Subject, session
from tests.chaos.verifier import Verdict

SESSION_KILLS_MAX = 40
TRIES_MAX = 3
HUNTS_MAX = 3
HUNT_KILLS = 6


@dataclass
class Result:
    """What the whole run has come to."""

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    faults: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    def add(self, verdict: Verdict, where: str) -> None:
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.held += verdict.held
        self.faults += [f"{where}: {fault}" for fault in verdict.faults]


async def hit(one: Session, subject: Subject, name: str, dice: random.Random, result: Result) -> None:
    """One hit of a point; the call is chosen nearer to the first at every try that misses."""
    fault = faults_of(one.transport).get(name)
    if fault is not None:
        result.kills += 1
        result.hits[one.transport, name] += await fault(one, subject)
        return
    point = points_of(one.transport)[name]
    for attempt in range(TRIES_MAX):
        call = dice.randint(1, max(1, point.calls_max >> (2 * attempt)))
        result.kills += 1
        if await one.live(subject, name, call, stops=point.stops):
            result.hits[one.transport, name] += 1
            return


async def cover(folder: Path, plan: list[str], seed: int, broker: str, result: Result) -> None:
    """Hit the points of a plan, in sessions that are verified one by one."""
    dice = random.Random(seed)
    dice.shuffle(plan)
    for number, at in enumerate(range(0, len(plan), SESSION_KILLS_MAX)):
        where = folder / f"{'kafka' if broker else 'embedded'}-{number}"
        async with session(where, seed + number, broker) as (one, subject):
            for name in plan[at : at + SESSION_KILLS_MAX]:
                await hit(one, subject, name, dice, result)
            verdict = await one.verdict(subject)
        result.add(verdict, f"{where.name}, seed {seed + number}")
        print(f"{where.name}: {result.kills} kills so far, {verdict.faults or 'verified'}", file=sys.stderr, flush=True)
        if not verdict.faults:
            shutil.rmtree(where)


async def hunt(folder: Path, name: str, seed: int, result: Result) -> None:
    """Plant a bug, and see whether the verifier finds it."""
    dice, ignored = random.Random(seed), Result()
    for number in range(HUNTS_MAX):
        where = folder / f"bug-{name}-{number}"
        async with session(where, seed + number, bug=name) as (one, subject):
            for _ in range(HUNT_KILLS):
                await hit(one, subject, dice.choice(BUGS[name].points), dice, ignored)
            verdict = await one.verdict(subject)
        shutil.rmtree(where)
        if verdict.faults:
            result.found[name] = verdict.faults[0]
            print(f"planted {name}: found, {verdict.faults[0][:150]}", file=sys.stderr, flush=True)
            return
    result.faults.append(f"planted {name}: not found")
    print(result.faults[-1], file=sys.stderr, flush=True)


def names_of(transport: str) -> list[str]:
    """Every crash point and fault of a transport."""
    return [*points_of(transport), *faults_of(transport)]


def table(result: Result, transports: list[str]) -> str:
    """Hits of every point, over each transport."""
    names = sorted({name for transport in transports for name in names_of(transport)})
    lines = ["| crash point | " + " | ".join(transports) + " |", "| --- |" + " --- |" * len(transports)]
    for name in names:
        cells = [str(result.hits[each, name]) if name in names_of(each) else "–" for each in transports]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def misses(result: Result, hits: dict[str, int]) -> list[str]:
    """Points that were hit less often than asked."""
    return [
        f"{transport} {name}: {result.hits[transport, name]} of {count} hits"
        for transport, count in hits.items()
        for name in names_of(transport)
        if result.hits[transport, name] < count
    ]


def arguments() -> argparse.Namespace:
    """What to do; the environment's QUICK is the Makefile's."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one hit of each point, embedded, and no planted bugs")
    parser.add_argument("--embedded", type=int, default=17, help="hits of each point on the embedded log")
    parser.add_argument("--kafka", type=int, default=3, help="hits of each point on Kafka")
    parser.add_argument("--bugs", default="all", help="planted bugs to hunt: all, none, or names with commas between")
    parser.add_argument("--only", default="", help="only points whose name begins so")
    parser.add_argument("--keep", type=Path, help="work in this folder, and keep what failed")
    return parser.parse_args()


async def run(asked: argparse.Namespace, folder: Path) -> int:
    """Everything, one scenario after the other."""
    began, result = time.monotonic(), Result()
    hits = {"embedded": 1} if asked.quick else {"embedded": asked.embedded, "kafka": asked.kafka}
    bugs = [] if asked.quick or asked.bugs == "none" else sorted(BUGS) if asked.bugs == "all" else asked.bugs.split(",")
    for name in bugs:
        await hunt(folder, name, asked.seed, result)
    for transport, count in hits.items():
        plan = [name for name in names_of(transport) if name.startswith(asked.only)] * count
        with ExitStack() as stack:
            address = ""
            if transport == "kafka" and plan:
                address = stack.enter_context(Broker.from_environment(folder / "broker")).address
            await cover(folder, plan, asked.seed, address, result)
    if not asked.only:
        result.faults += misses(result, hits)
    print(table(result, [each for each in hits if hits[each]]))
    print("\n".join(result.faults), file=sys.stderr)
    line = {
        "ok": not result.faults,
        "kills": result.kills,
        "lost": result.lost,
        "doubled": result.doubled,
        "held": result.held,
        "crash_points": len({name for _, name in result.hits if not name.startswith("fault")}),
        "faults": len({name for _, name in result.hits if name.startswith("fault")}),
        "hits": result.hits.total(),
        "planted": len(bugs),
        "found": len(result.found),
        "seed": asked.seed,
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(line), flush=True)
    return 1 if result.faults else 0


def main() -> int:
    """Run, in a folder of its own."""
    asked = arguments()
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        return asyncio.run(run(asked, asked.keep))
    with tempfile.TemporaryDirectory(prefix="headrace-chaos-") as folder:
        return asyncio.run(run(asked, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
