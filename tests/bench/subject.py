"""The subject: the real product, a whole node on the embedded log, in its own process.

Run as `python -m tests.bench.subject '<JSON of Plan>'`; the last line on stdout is the result as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, cast

import msgspec

from agents.node import Node
from channels.channel import Provider, Receipt, Request
from config.clock import SystemClock
from config.logging import set_up_logging
from config.settings import Settings
from streams import topics
from streams.records import Output
from tests.bench.workload import PROBE, Entry, Stream, definitions, with_probe, write_workspace

BATCH_RECORDS: Final = 1_000
TURN_S: Final = 0.002
PROBE_EVERY: Final = 20
IDLE_S: Final = 3.0
PERCENTILES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99, "max": 1.0}

Result = dict[str, Any]


class Plan(msgspec.Struct, frozen=True):
    """What one process measures; sizes are counts of events, `rate` is events per second.

    `broker_pid` is 0 where the broker is no process of this machine's.
    """

    mode: Literal["drain", "latency", "idle"]
    job: str = "J2"
    users: str = "zipf"
    user_count: int = 5_000
    warm: int = 20_000
    events: int = 40_000
    rate: int = 1_000
    seed: int = 1
    partitions: int = 8
    broker: str = "embedded://"
    broker_pid: int = 0
    workers: int = 1


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The percentiles of durations, in milliseconds; nothing for no durations."""
    ranked = sorted(seconds)
    if not ranked:
        return {}
    last = len(ranked) - 1
    return {name: round(ranked[round(last * share)] * 1000, 2) for name, share in PERCENTILES.items()}


def resident_bytes() -> int:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _outputs(entries: Sequence[Entry]) -> list[Output]:
    return [Output(topics.EVENTS.name, entry.partition, entry.key, entry.value) for entry in entries]


async def _append(node: Node, entries: Sequence[Entry]) -> None:
    for at in range(0, len(entries), BATCH_RECORDS):
        await node.engine.transport.append(_outputs(entries[at : at + BATCH_RECORDS]))
        await asyncio.sleep(0)


async def _drain(node: Node, plan: Plan) -> Result:
    """Warm the rows, preload the topic while nothing is read, then time until all is done and exported."""
    stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
    await _append(node, stream.take(plan.warm))
    await node.quiesce()
    await node.export.flush()
    node.engine.slices.paused = True
    await _append(node, stream.take(plan.events))
    before = node.queries.totals()
    node.engine.slices.paused = False
    began, cpu_began = time.perf_counter(), time.process_time()
    node.engine.transport.wake()
    await node.quiesce()
    await node.export.flush()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    totals = node.queries.totals()
    return {
        **throughput(plan, seconds, cpu_s),
        "applied": _applied(totals) - _applied(before),
        "sends": sum(sum(row.values()) for row in node.queries.sends().values()),
        "resident_mib": round(resident_bytes() / 2**20),
    }


def throughput(plan: Plan, seconds: float, cpu_s: float) -> Result:
    """The figures of a drain: wall and processor time per event, of the subject's processes alone."""
    return {
        "events": plan.events,
        "seconds": round(seconds, 3),
        "events_per_s": round(plan.events / seconds),
        "wall_us": round(seconds / plan.events * 1e6, 1),
        "cpu_us": round(cpu_s / plan.events * 1e6, 1),
    }


def _applied(totals: dict[str, Any]) -> int:
    return sum(int(totals[kind]) for kind in ("purchases", "custom_events", "attributes", "sessions"))


class Stamps:
    """When each probe was due, when its segment change was committed and when its message was sent."""

    def __init__(self, stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._stopwatch = stopwatch
        self.due: dict[str, float] = {}
        self.changed: dict[str, float] = {}
        self.sent: dict[str, float] = {}

    def change(self, user: bytes) -> None:
        """A segment change is there to be read: note the first of each probe."""
        if user.startswith(PROBE.encode()):
            self.changed.setdefault(user.decode(), self._stopwatch())

    def send(self, line: bytes) -> None:
        """A line is in the outbox: note a probe's."""
        found = json.loads(line)
        if found["campaign"] == PROBE:
            self.sent.setdefault(found["text"], self._stopwatch())

    def watch_commits(self, node: Node) -> None:
        """Note the time right after each commit that holds segment changes."""
        commit = node.engine.transport.commit

        async def watched(*arguments: Any) -> None:
            await commit(*arguments)
            for output in arguments[-1]:
                if output.topic == topics.SEGMENT_CHANGES.name:
                    self.change(output.key)

        vars(node.engine.transport)["commit"] = watched

    def provider(self, inner: Provider) -> Provider:
        """A provider that notes the time after each attempt, and passes everything on."""
        stamps = self

        class Watched:
            name = inner.name
            limits = inner.limits

            async def attempt(self, request: Request) -> Receipt:
                receipt = await inner.attempt(request)
                stamps.send(request.body)
                return receipt

            async def settle(self, requests: list[Request]) -> list[Receipt]:
                return await inner.settle(requests)

            async def close(self) -> None:
                await inner.close()

        return Watched()


async def _latency(node: Node, plan: Plan) -> Result:
    """Send on a schedule that never waits for the system; every delay counts from the scheduled time."""
    stamps = Stamps()
    stamps.watch_commits(node)
    providers = node.delivery._providers
    providers["log"] = stamps.provider(providers["log"])
    stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
    await _append(node, stream.take(plan.warm))
    await node.quiesce()
    entries = [probe(stream, at) if at % PROBE_EVERY == 0 else stream.take(1)[0] for at in range(plan.events)]
    late = await _send_on_schedule(node, entries, plan.rate, stamps)
    sent_s = time.perf_counter()
    await node.quiesce()
    return latencies(plan, stamps, late, time.perf_counter() - sent_s)


def latencies(plan: Plan, stamps: Stamps, late: Sequence[float], backlog_s: float) -> Result:
    """The figures of a latency run; raises KeyError for a probe that never arrived."""
    return {
        "rate": plan.rate,
        "probes": len(stamps.due),
        "event_to_membership_ms": percentiles([stamps.changed[user] - due for user, due in stamps.due.items()]),
        "event_to_sink_ms": percentiles([stamps.sent[user] - due for user, due in stamps.due.items()]),
        "producer_late_ms": percentiles(late),
        "backlog_s": round(backlog_s, 2),
    }


def probe(stream: Stream, at: int) -> Entry:
    """An event of a user of its own, whose segment change and message can be told from all others."""
    user = f"{PROBE}-{at:07d}"
    body = {"type": "event", "name": PROBE, "external_id": user, "properties": {"probe": user}}
    return stream.entry(user, body)


async def _send_on_schedule(node: Node, entries: Sequence[Entry], rate: int, stamps: Stamps) -> list[float]:
    """Append what is due, every two milliseconds; returns by how much each turn was late."""
    began, at, late = time.perf_counter(), 0, []
    while at < len(entries):
        now = time.perf_counter()
        until = min(len(entries), int((now - began) * rate) + 1)
        if until > at:
            for index in range(at, until):
                if index % PROBE_EVERY == 0:
                    stamps.due[entries[index].key.decode()] = began + index / rate
            late.append(now - (began + at / rate))
            await _append_turn(node, entries[at:until])
            at = until
        await asyncio.sleep(TURN_S)
    return late


async def _append_turn(node: Node, entries: Sequence[Entry]) -> None:
    await node.engine.transport.append(_outputs(entries))


async def _idle(node: Node, plan: Plan) -> Result:
    """Memory and processor of a node that has started and has nothing to do."""
    cpu_began = time.process_time()
    await asyncio.sleep(IDLE_S)
    cpu_share = (time.process_time() - cpu_began) / IDLE_S
    return {"resident_mib": round(resident_bytes() / 2**20, 1), "cpu_percent": round(cpu_share * 100, 2)}


MODES: Final = {"drain": _drain, "latency": _latency, "idle": _idle}


async def measure(plan: Plan, folder: Path) -> Result:
    """Start a node in a folder, measure, stop it."""
    files = definitions(plan.job)
    workspace = write_workspace(folder / "workspace", with_probe(files) if plan.mode == "latency" else files)
    settings = Settings(
        broker=plan.broker, data=folder / "data", partitions=plan.partitions, workspace=workspace, http=""
    )
    node = Node(settings, SystemClock())
    node.wire()
    await node.start()
    working: asyncio.Future[Result] = asyncio.ensure_future(MODES[plan.mode](node, plan))
    failure: asyncio.Future[BaseException] | None = node.engine.failure
    assert failure is not None
    await asyncio.wait(cast("list[asyncio.Future[Any]]", [working, failure]), return_when=asyncio.FIRST_COMPLETED)
    if failure.done():
        raise failure.result()
    await node.stop()
    return working.result()


def main() -> None:
    """Measure the plan given as the first argument."""
    import uvloop

    set_up_logging()
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(uvloop.run(measure(plan, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
