"""The fleet's part of a whole run: which faults in which sessions, what came of them, and the hunt for planted bugs."""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from tests.chaos.fleet.brokers import BROKER_FAULTS, cluster_in
from tests.chaos.fleet.catalogue import FAULTS
from tests.chaos.fleet.faults import Fault, at_step
from tests.chaos.fleet.planted import BUGS
from tests.chaos.fleet.session import Fleet, counted, fleet_session
from tests.chaos.verifier import Verdict

FLEET: Final = "fleet"
BROKERS: Final = "brokers"
HITS: Final = {FLEET: 2, BROKERS: 1}
"""Of each fault in a whole run."""

QUICK: Final = ("fault: one of two killed -9", "fault: frozen at a step")
SESSION_FAULTS_MAX: Final = 6
TRIES_MAX: Final = 3
HUNTS_MAX: Final = 3

Job = Callable[[], Awaitable[None]]


class Tally(Protocol):
    """What a run adds up to."""

    hits: Counter[tuple[str, str]]
    kills: int
    faults: list[str]
    found: dict[str, str]

    def add(self, verdict: Verdict, where: str) -> None:
        """Take a session's verdict."""


def names_of(kind: str) -> list[str]:
    """Every fault of workers, or of brokers."""
    return list(FAULTS if kind == FLEET else BROKER_FAULTS)


def wanted_of(only: str, *, quick: bool = False) -> Counter[tuple[str, str]]:
    """How often each fault is wanted; `only` is `fleet` or `brokers`, perhaps with a part of a name after a colon."""
    kind, _, part = only.partition(":")
    if quick:
        return Counter({(FLEET, name): 1 for name in QUICK} if not only else {})
    return Counter(
        {
            (each, name): count
            for each, count in HITS.items()
            if kind in ("", each)
            for name in names_of(each)
            if part.strip() in name
        }
    )


def parts_of(wanted: Mapping[tuple[str, str], int], kind: str, seed: int) -> list[list[str]]:
    """The faults of each session of a kind, in shuffled order."""
    names = [name for (each, name), count in sorted(wanted.items()) if each == kind for _ in range(count)]
    random.Random(seed).shuffle(names)
    parts = -(-len(names) // SESSION_FAULTS_MAX)
    return [names[number::parts] for number in range(parts)]


def jobs_of(wanted: Mapping[tuple[str, str], int], folder: Path, seed: int, broker: str, result: Tally) -> list[Job]:
    """The sessions, each verified by itself; those of brokers start their own, the others use `broker`."""
    jobs: list[Job] = []
    for number, names in enumerate(parts_of(wanted, BROKERS, seed)):
        jobs.append(partial(cover_brokers, folder / f"{BROKERS}-{number}", names, seed + number, result))
    for number, names in enumerate(parts_of(wanted, FLEET, seed)):
        jobs.append(partial(cover, folder / f"{FLEET}-{number}", names, seed + number, broker, result))
    return jobs


async def cover(where: Path, names: list[str], seed: int, broker: str, result: Tally) -> None:
    """One session of a fleet, with these faults."""
    await _cover(where, FLEET, {name: FAULTS[name] for name in names}, names, seed, broker, result)


async def cover_brokers(where: Path, names: list[str], seed: int, result: Tally) -> None:
    """One session on three brokers of its own."""
    async with cluster_in(where.with_name(f"{where.name}-cluster")) as cluster:
        faults: dict[str, Fault] = {name: partial(_on_cluster, BROKER_FAULTS[name], cluster) for name in names}
        await _cover(where, BROKERS, faults, names, seed, cluster.address, result)


async def _on_cluster(fault: Any, cluster: Any, fleet: Fleet) -> bool:
    return bool(await fault(fleet, cluster))


async def _cover(
    where: Path, kind: str, faults: Mapping[str, Fault], names: Iterable[str], seed: int, broker: str, result: Tally
) -> None:
    began = time.monotonic()
    async with fleet_session(where, seed, broker) as fleet:
        for name in names:
            has_hit = await _hit(fleet, name, faults[name], result)
            result.hits[kind, name] += has_hit  # not in one line: other sessions count meanwhile
        verdict = await fleet.rest()
    result.add(verdict, f"{where.name}, seed {seed}")
    told = f"{fleet.work.number} events, {len(fleet.calls)} calls, whole again within {fleet.slowest_s:.0f} s"
    ended = f"; ended by themselves: {counted(fleet.reasons)}" if fleet.ends else ""
    seconds = time.monotonic() - began
    print(f"{where.name}: {seconds:.0f} s, {told}{ended}: {verdict.faults or 'verified'}", file=sys.stderr, flush=True)
    if not verdict.faults:
        await asyncio.to_thread(shutil.rmtree, where)


async def _hit(fleet: Fleet, name: str, fault: Fault, result: Tally) -> bool:
    for _ in range(TRIES_MAX):
        result.kills += 1
        if await fault(fleet):
            return True
        print(f"{fleet.folder.name}: missed {name}", file=sys.stderr, flush=True)
    return False


async def hunt(folder: Path, name: str, seed: int, broker: str, result: Tally) -> None:
    """Plant a bug in every worker, and see whether the verifier finds it."""
    for number in range(HUNTS_MAX):
        where = folder / f"bug-{name}-{number}"
        has_hit = False
        async with fleet_session(where, seed + number, broker, name) as fleet:
            for step in BUGS[name].points:
                has_hit |= await (FAULTS[step](fleet) if step in FAULTS else at_step(fleet, step))
            verdict = await fleet.rest()
        await asyncio.to_thread(shutil.rmtree, where)
        if verdict.faults and has_hit:
            result.found[name] = verdict.faults[0]
            print(f"planted {name}: found, {verdict.faults[0][:150]}", file=sys.stderr, flush=True)
            return
        print(f"planted {name}: {where.name} had {has_hit=}, {verdict.faults}", file=sys.stderr, flush=True)
    result.faults.append(f"planted {name}: not found")
    print(result.faults[-1], file=sys.stderr, flush=True)
