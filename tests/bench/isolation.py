"""What a scan over a million users and a hung provider do to events meanwhile.

`python -m tests.bench.isolation` prepares the users, then sends events on a schedule, by turns while nothing else
happens and while a scan runs at its default rate and the webhooks' provider takes requests and says nothing. It
prints the percentiles of each turn, and at last the medians: events must not be later than twice as late as when
idle, or 25 ms later, whichever is more. `--watch` adds what held the loop.
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

import agents.node
from agents.node import Node
from agents.scan import run_scans
from config.clock import SystemClock
from config.settings import Settings
from streams import topics
from streams.codec import partition_of
from streams.definitions import Definitions, read_definitions
from streams.records import Output
from tables.store import Store
from tests.bench.hung import Provider
from tests.bench.scan import OLD, PARTITIONS, USERS, prepare
from tests.bench.subject import Stamps, percentiles
from tests.bench.workload import PROBE, definitions, with_probe
from tests.stalls import Watch

TURNS: Final = 5
TURN_S: Final = 30.0
CALM_S: Final = 3.0
PROBES_PER_S: Final = 50
WARM_S: Final = 3.0
LATE_S_MAX: Final = 60.0
TIMES_MAX: Final = 2.0
MORE_MS_MAX: Final = 25.0
HOOK: Final = "hook"


def workspace(*, changed: bool) -> Definitions:
    """A hundred segments and fifty campaigns, a message for each probe, and a webhook for each other event."""
    files = with_probe(definitions("J2"))
    files[f"campaigns/{HOOK}.yaml"] = {
        "name": HOOK,
        "trigger": {"event": {"name": HOOK}},
        "channel": "webhook",
        "re_eligible_after": "0s",
        "message": {"body": "{{ event_properties.${probe} }}"},
    }
    if changed:
        files["segments/turn.yaml"] = {
            "name": "turn",
            "filter": {"event": {"name": "like", "at_least": 1, "within": "31d"}},
        }
    return read_definitions(files)


def event(name: str, user: str) -> Output:
    """A custom event of a user, who is named in it too."""
    body = {"type": "event", "name": name, "external_id": user, "properties": {"probe": user}}
    key = user.encode()
    return Output(topics.EVENTS.name, partition_of(key, PARTITIONS), key, json.dumps(body).encode())


class Costs:
    """What a stretch of time cost: processor seconds of the process, and how long each sync of the log took."""

    def __init__(self, store: Store) -> None:
        self._inner = store.sync
        self._syncs: list[float] = []
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        vars(store)["sync"] = self._sync

    def _sync(self) -> None:
        began = time.perf_counter()
        self._inner()
        self._syncs.append(time.perf_counter() - began)

    def take(self) -> dict[str, Any]:
        """Since the last call."""
        now, cpu = time.perf_counter(), time.process_time()
        share = (cpu - self._cpu_began) / (now - self._began)
        found = {"cpu_percent": round(100 * share, 1), "syncs": len(self._syncs), "sync_ms": percentiles(self._syncs)}
        self._syncs, self._began, self._cpu_began = [], now, cpu
        return found


class Bench:
    """A node over the prepared users, whose scan goes on only while somebody lets it."""

    def __init__(self, node: Node, stamps: Stamps, provider: Provider) -> None:
        self.node = node
        self._stamps = stamps
        self._provider = provider
        self._costs = Costs(node.store)
        self._sent = 0

    async def probes(self, seconds: float) -> list[float]:
        """Send probes on a schedule; how long each took from its due time to the sink, in seconds."""
        began, at, count = time.perf_counter(), 0, int(seconds * PROBES_PER_S)
        names = [f"{PROBE}-{self._sent + number:07d}" for number in range(count)]
        self._sent += count
        while at < count:
            while at < count and time.perf_counter() >= began + at / PROBES_PER_S:
                self._stamps.due[names[at]] = began + at / PROBES_PER_S
                await self.node.engine.transport.append([event(PROBE, names[at]), event(HOOK, f"{HOOK}-{at % 500}")])
                at += 1
            await asyncio.sleep(0.001)
        deadline = time.perf_counter() + LATE_S_MAX
        while any(name not in self._stamps.sent for name in names) and time.perf_counter() < deadline:
            await asyncio.sleep(0.005)
        return [self._stamps.sent[name] - self._stamps.due[name] for name in names]

    async def turn(self, seconds: float) -> dict[str, Any]:
        """One turn without and one with the scan and the hung provider."""
        self._costs.take()
        idle = await self.probes(seconds)
        idle_costs = self._costs.take()
        self._provider.tell("hang")
        before = self.decided()
        async with self.scanning():
            await asyncio.sleep(CALM_S / 3)
            began, so_far = time.perf_counter(), self.decided()
            self._costs.take()
            busy = await self.probes(seconds)
            rate = (self.decided() - so_far) / (time.perf_counter() - began)
            costs = self._costs.take()
        waiting = self.node.delivery.pumps["webhook"].silent
        self._provider.tell("answer")
        await asyncio.sleep(CALM_S)
        return {
            "idle_ms": percentiles(idle),
            "idle": idle_costs,
            "scan": costs,
            "scan_ms": percentiles(busy),
            "scan_users_per_s": round(rate),
            "decided": self.decided() - before,
            "silent_hosts": waiting,
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


async def measure(data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Prepare, then all turns."""
    began = time.perf_counter()
    with Provider() as provider:
        settings = Settings(
            data=data,
            partitions=PARTITIONS,
            http="",
            webhook_url=f"http://127.0.0.1:{provider.port}/",
            http_allow="127.0.0.0/8",
        )
        node = Node(settings, SystemClock())
        await node.connect()
        await node.workspaces.apply(workspace(changed=False))
        await node.disconnect()
        prepare(data, asked.users, OLD, time.time_ns() // 1_000_000)
        prepared_s = time.perf_counter() - began
        agents.node.run_scans = _never
        node = Node(settings, SystemClock())
        node.wire()
        await node.start()
        stamps = Stamps()
        providers = node.delivery._providers
        providers["log"] = stamps.provider(providers["log"])
        bench = Bench(node, stamps, provider)
        await bench.probes(WARM_S)
        await node.workspaces.apply(workspace(changed=True))
        while not node.users.is_building:  # noqa: ASYNC110  # the fold sets no event
            await asyncio.sleep(0.01)
        watch = Watch()
        if asked.watch:
            watch.start()
        turns = []
        for _ in range(asked.turns):
            turns.append(await bench.turn(asked.seconds))
            print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
        watch.stop()
        if asked.watch:
            print(watch.report(), file=sys.stderr)
        await node.stop()
    return {"users": asked.users, "prepared_s": round(prepared_s), "turns": turns, **verdict(turns)}


def verdict(turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the turns' p99, and whether the busy one is within what is allowed."""
    idle, scan = (median(turn[f"{kind}_ms"]["p99"] for turn in turns) for kind in ("idle", "scan"))
    allowed = max(TIMES_MAX * idle, idle + MORE_MS_MAX)
    return {"idle_p99_ms": idle, "scan_p99_ms": scan, "allowed_ms": round(allowed, 2), "holds": scan <= allowed}


def main(argv: list[str] | None = None) -> int:
    """Measure on a folder of its own; 1 where events were held up for longer than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--seconds", type=float, default=TURN_S, help="of each turn")
    parser.add_argument("--watch", action="store_true", help="print what held the loop, too")
    asked = parser.parse_args(argv)
    data = Path(tempfile.mkdtemp(prefix="headrace-isolation-"))
    try:
        found = uvloop.run(measure(data, asked))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(found))
    return int(not found["holds"])


if __name__ == "__main__":
    sys.exit(main())
