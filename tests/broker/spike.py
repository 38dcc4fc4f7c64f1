"""A transaction per slice on a real broker: what it costs, and what survives kill -9 and SIGSTOP.

    python -m tests.broker.spike cost | kill | freeze [--seed N] …

Prints a table and, as its last line, the same numbers as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiokafka.producer.sender
import uvloop
from aiokafka import AIOKafkaProducer

from tests.broker.kafka import Broker, create_topics
from tests.broker.toy import (
    STAGES,
    Plan,
    closed_batch,
    commit_slice,
    end_offset,
    ended,
    new_run,
    spawn,
    started_producer,
    verdict,
)

RECORDS_PER_LIFE = 1_000
SMALL_SLICE = 40
STALL_POLLS_MAX = 300
STALL_POLL_S = 0.2
SIZES = (1, 100, 1_000, 2_000)
PACED_SIZES = (1, 100, 500)
PACE_S = 0.05
CASE_S = 3.0
# How long aiokafka waits while the broker still writes the last markers: its own choice, and ours.
BACKOFFS_S = {"transaction": 0.02, "transaction, 2 ms backoff": 0.002}
PAIR = (b"user-000001", b"x" * 120)


def kill_run(address: str, kills: int, seed: int, *, transactional: bool = True) -> dict[str, Any]:
    """Kill the worker `kills` times, half of them at a named stage of a slice, then finish and compare.

    `in_doubt` counts lives whose last commit was found done although they died without knowing it.
    """
    rng, known, in_doubt, takeovers = random.Random(seed), 0, 0, []
    plan = new_run(address, "kill", kills * RECORDS_PER_LIFE, seed, transactional=transactional)
    for life in range(kills + 1):
        own = replace(plan, seed=rng.randrange(1 << 30))
        if life < kills:
            own = replace(own, slice_records_max=SMALL_SLICE)
        if life < kills and life % 2:
            own = replace(own, hit_slice=rng.randint(1, 8), hit_stage=STAGES[life // 2 % 3])
        worker = spawn(own)
        by_us = life < kills and not own.hit_stage
        said = kill_at_random(worker, rng) if by_us else ended(worker)
        if (life < kills) != (worker.returncode == -signal.SIGKILL):
            raise RuntimeError(f"life {life} ended with {worker.returncode}: {said[-1:]}")
        for word, number, *rest in said:
            in_doubt += word == "restored" and int(number) > known
            takeovers += [int(ms) for ms in rest]
            known = int(number)
    measured = {"kills": kills, "in_doubt": in_doubt, "takeover_ms_p50": statistics.median(takeovers)}
    return {**measured, "takeover_ms_max": max(takeovers), **uvloop.run(verdict(plan))}


def kill_at_random(worker: subprocess.Popen[str], rng: random.Random) -> list[list[str]]:
    """Kill at a random moment, mostly while slices flow; gives what the worker had said."""
    said = []
    if rng.random() < 0.75 and worker.stdout:
        said = [worker.stdout.readline().split()]
    time.sleep(rng.uniform(0, 0.5))
    worker.kill()
    return [*said, *ended(worker)]


def spawn_frozen(plan: Plan, stage: str) -> subprocess.Popen[str]:
    """A worker that has stopped itself (SIGSTOP) at `stage` of its third slice."""
    hit = replace(plan, hit_slice=3, hit_stage=stage, hit_signal=signal.SIGSTOP)
    worker = spawn(replace(hit, slice_records_max=SMALL_SLICE))
    os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    return worker


def freeze_run(address: str, stage: str, seed: int, *, transactional: bool = True) -> dict[str, Any]:
    """Stop a worker at `stage`, let a second one finish, wake the first: what becomes of both?"""
    plan = new_run(address, "freeze", 500, seed, transactional=transactional)
    frozen = spawn_frozen(plan, stage)
    heir = spawn(plan)
    said = ended(heir)
    frozen.send_signal(signal.SIGCONT)
    last = ended(frozen)[-1]
    fate = {
        "stage": stage,
        "takeover_ms": int(said[0][2]),
        "woken": " ".join(last),
        "exit": frozen.returncode,
    }
    return {**fate, **uvloop.run(verdict(plan))}


def stall_run(address: str, seed: int) -> dict[str, Any]:
    """Stop a worker inside a transaction and send no successor: how long are committed readers held up?"""
    plan = new_run(address, "stall", 500, seed)
    frozen = spawn_frozen(plan, "acked")
    begun = time.monotonic()
    uvloop.run(until_no_open_transaction(address, plan.topic("output")))
    held_s = round(time.monotonic() - begun, 1)
    frozen.send_signal(signal.SIGCONT)
    return {"stage": "acked, no heir", "held_s": held_s, "woken": " ".join(ended(frozen)[-1])}


async def until_no_open_transaction(address: str, topic: str) -> None:
    """Return once what committed readers may read reaches the end of the log."""
    end = await end_offset(address, topic, "read_uncommitted")
    for _ in range(STALL_POLLS_MAX):
        if await end_offset(address, topic, "read_committed") >= end:
            return
        await asyncio.sleep(STALL_POLL_S)
    raise TimeoutError(f"{topic} still has an open transaction")


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    mode: str
    partitions: int
    size: int
    pace_s: float = 0.0

    @property
    def transactional(self) -> bool:
        """Whether slices are transactions at all."""
        return self.mode in BACKOFFS_S


@dataclass(slots=True)
class Meter:
    """What the slices of one case took, all partitions together."""

    total_ms: list[float]
    build_ms: list[float]


async def one_slice(producer: AIOKafkaProducer, topics: Sequence[str], partition: int, case: Case) -> float:
    """Build and commit one slice; the time between the two."""
    batches = [(topic, partition, closed_batch(producer, [PAIR] * case.size)) for topic in topics]
    built = time.perf_counter()
    if case.transactional:
        await commit_slice(producer, batches)
    else:
        await asyncio.gather(*[await producer.send_batch(b, topic, partition=p) for topic, p, b in batches])
    return built


async def drive(producer: AIOKafkaProducer, topics: Sequence[str], partition: int, case: Case, meter: Meter) -> None:
    """Commit slices on one partition until the case is over, back to back or at its pace."""
    due = over = time.perf_counter()
    over += CASE_S
    due += case.pace_s * partition / case.partitions
    while (begun := time.perf_counter()) < over:
        built = await one_slice(producer, topics, partition, case)
        done = time.perf_counter()
        meter.total_ms.append((done - begun) * 1000)
        meter.build_ms.append((built - begun) * 1000)
        due += case.pace_s
        await asyncio.sleep(max(0.0, due - done) if case.pace_s else 0)


async def measure(broker: Broker, case: Case) -> dict[str, Any]:
    """Run one case on fresh topics; milliseconds per slice as seen by one partition, CPU of both sides."""
    run = f"cost-{time.monotonic_ns()}"
    topics = [f"{run}.changelog", f"{run}.output"]
    create_topics(broker.address, dict.fromkeys(topics, case.partitions))
    ids = [f"{run}-{n}" for n in range(case.partitions)] if case.transactional else [None]
    aiokafka.producer.sender.BACKOFF_OVERRIDE = BACKOFFS_S.get(case.mode, 0.02)
    producers = [await started_producer(broker.address, id_, topics) for id_ in ids]
    for number in range(case.partitions):  # the first slice of a producer meets cold paths on both sides
        await one_slice(producers[number % len(producers)], topics, number, case)
    meter = Meter([], [])
    before = (time.process_time(), cpu_s(broker.pid), time.perf_counter())
    drives = (drive(producers[n % len(producers)], topics, n, case, meter) for n in range(case.partitions))
    await asyncio.gather(*drives)
    after = (time.process_time(), cpu_s(broker.pid), time.perf_counter())
    for producer in producers:
        await producer.stop()
    client_s, broker_s, elapsed_s = (late - early for early, late in zip(before, after, strict=True))
    return row(case, meter, client_s, broker_s, elapsed_s)


def row(case: Case, meter: Meter, client_s: float, broker_s: float, elapsed_s: float) -> dict[str, Any]:
    """The numbers of one case."""
    slices = len(meter.total_ms)
    cuts = statistics.quantiles(meter.total_ms, n=20)
    return {
        "mode": case.mode,
        "partitions": case.partitions,
        "size": case.size,
        "paced": bool(case.pace_s),
        "p50_ms": round(cuts[9], 1),
        "p95_ms": round(cuts[18], 1),
        "build_ms": round(statistics.median(meter.build_ms), 2),
        "slices_s": round(slices / elapsed_s),
        "records_s": round(slices * case.size / elapsed_s),
        "client_cpu_ms": round(client_s * 1000 / slices, 2),
        "broker_cpu_ms": round(broker_s * 1000 / slices, 2),
    }


def cpu_s(pid: int | None) -> float:
    """The processor time that a process has used so far; 0 for a broker that is not ours."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def weigh(address: str, count: int) -> dict[str, Any]:
    """What `count` idle transactional producers hold in this process."""
    run = f"weigh-{time.monotonic_ns()}"
    create_topics(address, {run: count})
    before = footprint()
    begun = time.perf_counter()
    producers = await asyncio.gather(*(started_producer(address, f"{run}-{n}", [run]) for n in range(count)))
    started_ms = (time.perf_counter() - begun) * 1000
    for number, producer in enumerate(producers):
        await commit_slice(producer, [(run, number, closed_batch(producer, [PAIR]))])
    sockets, tasks, kib = (late - early for early, late in zip(before, footprint(), strict=True))
    for producer in producers:
        await producer.stop()
    return {"producers": count, "sockets": sockets, "tasks": tasks, "kib": kib, "start_ms": round(started_ms)}


def footprint() -> tuple[int, int, int]:
    """Sockets, asyncio tasks and resident KiB of this process now."""
    links = (str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return sum(link.startswith("socket:") for link in links), len(asyncio.all_tasks()), pages * 4


async def cost(broker: Broker) -> list[dict[str, Any]]:
    """The weight of producers while the process is young, then a warm-up, then all cases."""
    modes = [*BACKOFFS_S, "idempotent"]
    weights = [await weigh(broker.address, count) for count in (1, 8, 32)]
    await measure(broker, Case("idempotent", 8, 100))
    await measure(broker, Case("transaction, 2 ms backoff", 8, 100))
    cases = [Case(mode, count, size) for count in (1, 8) for size in SIZES for mode in modes]
    cases += [Case(mode, 8, size, PACE_S) for size in PACED_SIZES for mode in modes]
    return weights + [await measure(broker, case) for case in cases]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as aligned columns; a new head whenever the columns change."""
    lines: list[str] = []
    names: list[str] = []
    for line in rows:
        if list(line) != names:
            names = list(line)
            lines.append("  ".join(f"{name:>{width(name, rows)}}" for name in names))
        lines.append("  ".join(f"{line[name]!s:>{width(name, rows)}}" for name in names))
    return "\n".join(lines)


def width(name: str, rows: list[dict[str, Any]]) -> int:
    """The widest thing in a column."""
    return max(len(name), *(len(str(line[name])) for line in rows if name in line))


def main() -> None:
    """Read the arguments, run one mode against a broker, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.broker.spike", description=__doc__)
    parser.add_argument("mode", choices=("cost", "kill", "freeze"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=24, help="for kill")
    parser.add_argument("--planted-bug", action="store_true", help="no transactions: kill and freeze must find it")
    options = parser.parse_args()
    honest = not options.planted_bug
    with tempfile.TemporaryDirectory() as folder, Broker.from_environment(Path(folder) / "kafka") as broker:
        if options.mode == "cost":
            rows = uvloop.run(cost(broker))
        elif options.mode == "kill":
            rows = [kill_run(broker.address, options.kills, options.seed, transactional=honest)]
        else:
            rows = [freeze_run(broker.address, stage, options.seed, transactional=honest) for stage in STAGES]
            rows += [stall_run(broker.address, options.seed)] if honest else []
    print(table(rows))
    print(json.dumps({"mode": options.mode, "seed": options.seed, "rows": rows}))


if __name__ == "__main__":
    main()
