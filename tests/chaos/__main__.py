"""`python -m tests.chaos`: kill the product at every crash point, verify what came out, find the planted bugs.

The last line on stdout is one JSON object. Exit code 0 only if everything was hit, verified and found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.broker.kafka import Broker, BrokerUnavailableError
from tests.chaos.fleet import run as several
from tests.chaos.fleet.planted import BUGS as FLEET_BUGS
from tests.chaos.hunting import cover, hunt
from tests.chaos.plan import Wanted, full, quick, sessions
from tests.chaos.planted import BUGS
from tests.chaos.result import Result
from tests.chaos.soak import SOAK_S, soak

TRANSPORTS = ("embedded", "kafka")
Job = Callable[[], Awaitable[None]]


def arguments() -> argparse.Namespace:
    """What to do; the Makefile's QUICK is `--quick`."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="each point once, some of them on Kafka; no planted bugs")
    parser.add_argument("--embedded", type=int, default=17, help="hits of each point on the embedded log")
    parser.add_argument("--kafka", type=int, default=3, help="hits of each point on Kafka")
    parser.add_argument("--bugs", default="all", help="planted bugs to hunt: all, none, or names with commas between")
    parser.add_argument("--only", default="", help="only points whose name begins so; fleet, brokers: only these")
    parser.add_argument("--soak", type=float, default=SOAK_S, help="seconds of a long life on each transport; 0: none")
    parser.add_argument("--at-once", type=int, default=4, help="sessions side by side; they mostly wait")
    parser.add_argument("--keep", type=Path, help="work in this empty folder, and keep what failed")
    asked = parser.parse_args()
    if asked.keep and asked.keep.is_dir() and any(asked.keep.iterdir()):
        parser.error(f"--keep {asked.keep}: it holds an earlier run, whose broker would go on; name an empty folder")
    return asked


def bugs_of(asked: argparse.Namespace) -> list[str]:
    """The planted bugs to hunt."""
    if asked.quick or asked.bugs == "none":
        return []
    return sorted({**BUGS, **FLEET_BUGS}) if asked.bugs == "all" else asked.bugs.split(",")


def soaks_of(asked: argparse.Namespace, wanted: Wanted, address: str) -> list[tuple[str, str]]:
    """Transport and broker of each long life."""
    found = {transport for transport, _ in wanted if transport in TRANSPORTS}
    transports = sorted(found) if asked.soak and not asked.quick else []
    return [(transport, address if transport == "kafka" else "") for transport in transports]


def wanted_of(asked: argparse.Namespace) -> Wanted:
    """What is to be hit how often."""
    wanted = quick(asked.seed) if asked.quick else full(asked.embedded, asked.kafka)
    alone = Wanted({place: count for place, count in wanted.items() if place[1].startswith(asked.only)})
    return alone + several.wanted_of(asked.only, quick=asked.quick)


def broker_for(wanted: Wanted, bugs: list[str], folder: Path, stack: ExitStack) -> str:
    """The address of a Kafka if one is needed; without one, CI fails and others go on without Kafka, and say so."""
    kinds = {kind for kind, _ in wanted} | {BUGS[name].transport if name in BUGS else several.FLEET for name in bugs}
    if kinds <= {"embedded", several.BROKERS}:
        return ""
    try:
        return stack.enter_context(Broker.from_environment(folder / "broker")).address
    except BrokerUnavailableError as missing:
        if os.environ.get("CI") == "true":
            raise
        print(f"NOTHING IS KILLED ON KAFKA: {missing}", file=sys.stderr, flush=True)
        for place in [place for place in wanted if place[0] != "embedded"]:
            del wanted[place]
        bugs[:] = [name for name in bugs if name in BUGS and BUGS[name].transport == "embedded"]
        return ""


async def together(jobs: list[Job], at_once: int, result: Result) -> None:
    """Run jobs side by side in their order; one that breaks is a fault, and ends no other."""
    slots = asyncio.Semaphore(at_once)

    async def one(job: Job) -> None:
        async with slots:
            await job()

    for ended in await asyncio.gather(*(one(job) for job in jobs), return_exceptions=True):
        if isinstance(ended, BaseException):
            result.faults.append(f"the harness failed: {ended!r}")


async def run(asked: argparse.Namespace, folder: Path) -> int:
    """Everything that was asked for."""
    began, result = time.monotonic(), Result()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # what runs below it ends with it
    wanted, bugs = wanted_of(asked), bugs_of(asked)
    with ExitStack() as stack:
        address = broker_for(wanted, bugs, folder, stack)
        jobs: list[Job] = [
            partial(soak, folder / f"soak-{transport}", asked.seed, broker, asked.soak, result)
            for transport, broker in soaks_of(asked, wanted, address)
        ]
        jobs += several.jobs_of(wanted, folder, asked.seed, address, result)
        for number, (transport, names) in enumerate(sessions(wanted, asked.seed)):
            where, broker = folder / f"{transport}-{number}", address if transport == "kafka" else ""
            jobs.append(partial(cover, where, names, asked.seed + number, broker, result))
        jobs += [
            partial(several.hunt, folder, name, asked.seed, address, result) for name in bugs if name in FLEET_BUGS
        ]
        for name in (name for name in bugs if name in BUGS):
            broker = address if BUGS[name].transport == "kafka" else ""
            jobs.append(partial(hunt, folder / f"bug-{name}", name, asked.seed, broker, result))
        await together(jobs, asked.at_once, result)
    result.miss(wanted)
    print(result.table())
    print("\n".join(result.faults), file=sys.stderr)
    seconds = round(time.monotonic() - began)
    more = {"planted": len(bugs), "found": len(result.found), "seed": asked.seed, "seconds": seconds}
    print(json.dumps(result.line() | more), flush=True)
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
