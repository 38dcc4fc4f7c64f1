"""What a scan over a million users and a hung provider do to events meanwhile.

`python -m tests.bench.isolation` prepares the users, then sends events on a schedule, by turns while nothing else
happens and while a scan runs at its default rate and the webhooks' provider takes requests and says nothing. It
prints the percentiles of each turn, and at last the medians: events must not be later than twice as late as when
idle, or 25 ms later, whichever is more; it ends with 1 where they are. `--own-time` counts delays by what the
worker's own thread computes, with syncs of 3 ms, for machines that have other things to do; see `own_time.py`.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

import agents.node
from agents.node import Node
from agents.scan import run_scans
from channels.channel import Provider, Receipt, Request
from config.clock import Clock, SystemClock
from config.settings import Settings
from streams import topics
from streams.codec import partition_of
from streams.definitions import Definitions, read_definitions
from streams.records import Output
from tables.store import Store
from tests.bench.own_time import OwnClock, OwnTimeLoop
from tests.bench.scan import OLD, PARTITIONS, USERS, prepare
from tests.bench.subject import Stamps, percentiles
from tests.bench.workload import PROBE, definitions, with_probe
from tests.simulation.runtime import Unwatched, replaced, stopwatches

TURNS: Final = 5
TURN_S: Final = 30.0
CALM_S: Final = 3.0
BEGIN_S: Final = 1.0
PROBES_PER_S: Final = 50
HOOK_USERS: Final = 500
WARM_S: Final = 3.0
LATE_S_MAX: Final = 60.0
TIMES_MAX: Final = 2.0
MORE_MS_MAX: Final = 25.0
HOOK: Final = "hook"

Stopwatch = Callable[[], float]


def workspace(*, changed: bool) -> Definitions:
    """A hundred segments and fifty campaigns, a message for each probe, and a webhook for each other event."""
    files = with_probe(definitions("J2"))
    files[f"campaigns/{HOOK}.yaml"] = {
        "name": HOOK,
        "trigger": {"event": {"name": HOOK}},
        "channel": "webhook",
        "re_eligible_after": "0s",
        "message": {"url": "https://hooks.example/in", "body": "{{ event_properties.${probe} }}"},
    }
    if changed:
        tree = {"event": {"name": "like", "at_least": 1, "within": "31d"}}
        files["segments/turn.yaml"] = {"name": "turn", "filter": tree}
    return read_definitions(files)


def event(name: str, user: str) -> Output:
    """A custom event of a user, who is named in it too."""
    body = {"type": "event", "name": name, "external_id": user, "properties": {"probe": user}}
    key = user.encode()
    return Output(topics.EVENTS.name, partition_of(key, PARTITIONS), key, json.dumps(body).encode())


class Hooks:
    """The webhooks' other side, in the place of the HTTP client: answers, or takes every request and says nothing."""

    def __init__(self, real: Provider) -> None:
        self.name, self.limits = real.name, real.limits
        self.answering = asyncio.Event()
        self.taken = 0

    async def attempt(self, request: Request) -> Receipt:
        """Sent, when it answers."""
        self.taken += 1
        await self.answering.wait()
        return Receipt(request.dispatch_id, "sent")

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Nothing was under way."""
        return [Receipt(request.dispatch_id, "retry") for request in requests]

    async def close(self) -> None:
        """Nothing is open."""


class TimedStore:
    """A store that notes how long each sync took; a compiled one lets nobody put another method on it."""

    def __init__(self, store: Store, syncs: list[float]) -> None:
        self._store, self._syncs = store, syncs

    def sync(self) -> None:
        """Sync, and note the seconds."""
        began = time.perf_counter()
        self._store.sync()
        self._syncs.append(time.perf_counter() - began)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the store has
        return getattr(self._store, name)


class Costs:
    """What a stretch of time cost: processor seconds of the process, and how long each sync of the log took."""

    def __init__(self, node: Node, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._syncs: list[float] = []
        self._began, self._cpu_began = stopwatch(), time.process_time()
        vars(node.engine.transport)["_store"] = TimedStore(node.store, self._syncs)

    def take(self) -> dict[str, Any]:
        """Since the last call; the processor's as a share of the time that passed, syncs by the wall."""
        now, cpu = self._stopwatch(), time.process_time()
        share = (cpu - self._cpu_began) / (now - self._began)
        found = {"cpu_percent": round(100 * share, 1), "syncs": len(self._syncs), "sync_ms": percentiles(self._syncs)}
        self._syncs.clear()
        self._began, self._cpu_began = now, cpu
        return found


class Bench:
    """A node over the prepared users, whose scan goes on only while somebody lets it."""

    def __init__(self, node: Node, stopwatch: Stopwatch) -> None:
        self.node = node
        self._stopwatch = stopwatch
        self._stamps = Stamps(stopwatch)
        self._costs = Costs(node, stopwatch)
        self._sent = 0
        providers = node.delivery._providers
        providers["log"] = self._stamps.provider(providers["log"])
        self._hooks = providers["webhook"] = Hooks(providers["webhook"])
        self._hooks.answering.set()

    async def probes(self, seconds: float) -> list[float]:
        """Send probes on a schedule; how long each took from its due time to the sink, in seconds."""
        began, count, stamps = self._stopwatch(), int(seconds * PROBES_PER_S), self._stamps
        names = [f"{PROBE}-{self._sent + number:07d}" for number in range(count)]
        self._sent += count
        for at, name in enumerate(names):
            stamps.due[name] = began + at / PROBES_PER_S
            await asyncio.sleep(max(0.0, stamps.due[name] - self._stopwatch()))
            await self.node.engine.transport.append([event(PROBE, name), event(HOOK, f"{HOOK}-{at % HOOK_USERS}")])
        deadline = self._stopwatch() + LATE_S_MAX
        while names[-1] not in stamps.sent or any(name not in stamps.sent for name in names):
            assert self._stopwatch() < deadline
            await asyncio.sleep(0.005)
        return [stamps.sent[name] - stamps.due[name] for name in names]

    async def turn(self, seconds: float) -> dict[str, Any]:
        """One turn without and one with the scan and the hung provider."""
        self._costs.take()
        idle, idle_costs = await self.probes(seconds), self._costs.take()
        self._hooks.answering.clear()
        async with self.scanning():
            await asyncio.sleep(BEGIN_S)
            began, so_far, taken = self._stopwatch(), self.decided(), self._hooks.taken
            self._costs.take()
            busy, costs = await self.probes(seconds), self._costs.take()
            rate = (self.decided() - so_far) / (self._stopwatch() - began)
        hung = self._hooks.taken - taken
        self._hooks.answering.set()
        await asyncio.sleep(CALM_S)
        return {
            "idle_ms": percentiles(idle),
            "scan_ms": percentiles(busy),
            "scan_users_per_s": round(rate),
            "hung_requests": hung,
            "idle": idle_costs,
            "scan": costs,
        }

    @asynccontextmanager
    async def scanning(self) -> AsyncIterator[None]:
        """Let the scan go on, as the product's own worker does."""
        task = asyncio.create_task(run_scans(self.node.engine, self.node.users))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def decided(self) -> int:
        """Rows that the scan has passed."""
        latest = self.node.workspaces.latest_version
        return sum(row["decided"] for row in self.node.queries.scans() if row["built_version"] == latest)


async def _never(*arguments: Any) -> None:
    """Instead of the node's own scans: they go on in turns."""
    await asyncio.Event().wait()


async def measure(data: Path, clock: Clock, stopwatch: Stopwatch, asked: argparse.Namespace) -> list[dict[str, Any]]:
    """All turns over a prepared folder."""
    node = Node(Settings(data=data, partitions=PARTITIONS, http=""), clock)
    node.wire()
    bench = Bench(node, stopwatch)
    await node.start()
    await bench.probes(WARM_S)
    await node.workspaces.apply(workspace(changed=True))
    while not node.users.is_building:  # noqa: ASYNC110  # the fold sets no event
        await asyncio.sleep(0.01)
    turns = []
    for _ in range(asked.turns):
        turns.append(await bench.turn(asked.seconds))
        print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
    await node.stop()
    return turns


async def make_ready(data: Path, users: int, now_ms: int) -> None:
    """A folder with so many users, and the workspace before its change."""
    node = Node(Settings(data=data, partitions=PARTITIONS, http=""), SystemClock())
    await node.connect()
    await node.workspaces.apply(workspace(changed=False))
    await node.disconnect()
    prepare(data, users, OLD, now_ms)


def verdict(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the turns' p99, and whether the busy one is within what is allowed."""
    idle, scan = (median(turn[f"{kind}_ms"]["p99"] for turn in turns) for kind in ("idle", "scan"))
    allowed = max(TIMES_MAX * idle, idle + MORE_MS_MAX)
    return {
        "idle_p99_ms": round(idle, 2),
        "scan_p99_ms": round(scan, 2),
        "allowed_ms": round(allowed, 2),
        "holds": scan <= allowed,
    }


def run(data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Prepare and measure in a folder."""
    now_ms = time.time_ns() // 1_000_000
    began = time.perf_counter()
    uvloop.run(make_ready(data, asked.users, now_ms))
    prepared_s = time.perf_counter() - began
    places: list[tuple[object, str, object]] = [(agents.node, "run_scans", _never)]
    if asked.own_time:
        loop = OwnTimeLoop()
        asyncio.set_event_loop(loop)
        with replaced([*places, *stopwatches(loop.time), (agents.node, "Watchdog", Unwatched)]):
            turns = loop.run_until_complete(measure(data, OwnClock(loop, now_ms), loop.time, asked))
        loop.close()
    else:
        with replaced(places):
            turns = uvloop.run(measure(data, SystemClock(), time.perf_counter, asked))
    return {"users": asked.users, "prepared_s": round(prepared_s), "turns": turns, **verdict(turns)}


def main(argv: list[str] | None = None) -> int:
    """Measure on a folder of its own; 1 where events were held up for longer than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--seconds", type=float, default=TURN_S, help="of each turn")
    parser.add_argument("--own-time", action="store_true", help="by what the worker computes, not by the wall")
    asked = parser.parse_args(argv)
    data = Path(tempfile.mkdtemp(prefix="headrace-isolation-"))
    try:
        found = run(data, asked)
    finally:
        shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(found))
    return int(not found["holds"])


if __name__ == "__main__":
    sys.exit(main())
