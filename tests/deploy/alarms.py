"""The alarm drill, `python -m tests.deploy.alarms`: a fleet under a real Prometheus, in peace and in trouble.

In peace no alert may fire. Then things are broken one after the other, and each time the alerts that are meant for it
must fire, and stop when it is mended. At the end every query of the Grafana boards is asked of what was recorded, and
promtool reads the metrics. Needs Apache Kafka as tests/broker does, and `prometheus`; takes about six minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from config.clock import SystemClock
from streams.codec import to_json
from tests.agents.nodes import write_workspace
from tests.broker.fleets import Fleet, Provider, fleet
from tests.broker.kafka import Broker
from tests.broker.workers import Site, producer_of
from tests.deploy.server import Prometheus, prometheus
from tests.deploy.test_boards import QUERIES

PEACE_S = 60.0
FIRE_S_MAX = 150.0
MEND_S_MAX = 150.0
RATE_S = 0.5
FLUSH_S_MAX = 30
USERS = 20
FILES = {
    "segments/fresh.yaml": {"name": "fresh", "filter": {"event": {"name": "like", "within": "1h"}}},
    "campaigns/hook.yaml": {
        "name": "hook",
        "trigger": {"event": {"name": "like"}},
        "channel": "webhook",
        "message": {"body": "hi"},
        "re_eligible_after": "0s",
    },
}


def now_s() -> float:
    """Now, as Prometheus counts it."""
    return SystemClock().now_ms() / 1000


class Drill(NamedTuple):
    """One thing that is broken, the alerts that must fire of it, and those that may: they follow from it."""

    name: str
    breaks: Callable[[], AbstractAsyncContextManager[None]]
    must: set[str]
    may: set[str]


class Yard:
    """What the drills break."""

    def __init__(self, site: Site, running: Fleet, hook: Provider) -> None:
        """Break the parts of this site."""
        self._site = site
        self._running = running
        self._hook = hook
        self.junk = 0
        self.open = True

    async def load(self) -> None:
        """A few events twice a second, each of which becomes a send; among them what the drill wants refused."""
        sender = producer_of(self._site, log_level=2)
        likes = [to_json({"type": "event", "name": "like", "external_id": f"user-{at}"}) for at in range(USERS)]
        while self.open:
            for value in (*likes, *[b"no json"] * self.junk):
                sender.produce(self._site.topic("events"), value)  # what a silent broker does not take waits here
            sender.poll(0)
            await asyncio.sleep(RATE_S)
        await asyncio.to_thread(sender.flush, FLUSH_S_MAX)

    @asynccontextmanager
    async def hung(self) -> AsyncIterator[None]:
        """The provider takes connections and answers nothing."""
        self._hook.hangs = True
        try:
            yield
        finally:
            self._hook.recover()

    @asynccontextmanager
    async def failing(self) -> AsyncIterator[None]:
        """The provider answers 503 to every other request."""
        self._hook.fails = True
        try:
            yield
        finally:
            self._hook.fails = False

    @asynccontextmanager
    async def refused(self) -> AsyncIterator[None]:
        """A producer writes what is no JSON."""
        self.junk = 5
        try:
            yield
        finally:
            self.junk = 0

    @asynccontextmanager
    async def dead(self) -> AsyncIterator[None]:
        """A worker dies by kill -9, again and again."""
        async with self._running.dead(1):
            yield

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Both workers stand still: nobody reads anything."""
        async with self._running.frozen(0), self._running.frozen(1):
            yield

    @asynccontextmanager
    async def unanswered(self) -> AsyncIterator[None]:
        """The broker stands still: canaries wait, and after a while the workers give up and end."""
        pid = self._site.broker.pid
        assert pid is not None, "the drill stops the broker, so it must be its own"
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def drills(yard: Yard) -> list[Drill]:
    """Everything that is broken, in order; what a dead or frozen worker leaves behind is late when it is taken up."""
    late = {"HeadraceFallingBehind", "HeadraceEventsLate", "HeadraceCanaryLate", "HeadracePartitionStalled"}
    stopped = {"HeadracePartitionStopped", "HeadraceTimersLate", *late}
    return [
        Drill("a provider hangs", yard.hung, {"HeadraceProviderSilent"}, {"HeadraceSendFailuresHigh"}),
        Drill("a provider fails", yard.failing, {"HeadraceSendFailuresHigh"}, set()),
        Drill("records are refused", yard.refused, {"HeadraceDeadLettersRising"}, set()),
        Drill("a worker is dead", yard.dead, {"HeadraceWorkerDown"}, {"HeadraceRestoreLong", *stopped}),
        Drill("the log does not answer", yard.unanswered, {"HeadraceWorkerDown"}, stopped),
        Drill("nobody reads", yard.frozen, {"HeadraceWorkerDown", "HeadracePartitionStopped"}, stopped),
    ]


class Report:
    """What was seen, line by line; `faults` is what should not have been."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.fired: dict[str, list[str]] = {}

    def say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def hold(self, name: str, fired: set[str], must: set[str], may: set[str]) -> None:
        """Hold what fired to what must and what may."""
        self.fired[name] = sorted(fired)
        wrong = [f"{name}: {each} did not fire" for each in sorted(must - fired)]
        wrong += [f"{name}: {each} fired" for each in sorted(fired - must - may)]
        self.faults += wrong
        self.say(f"{'FAULT' if wrong else 'ok':5} {name}: {', '.join(sorted(fired)) or 'silence'}")


async def drill(server: Prometheus, each: Drill, report: Report) -> None:
    """Break one thing, wait for its alerts, mend it, and wait until all is quiet again.

    What fired last before the mending counts, too: it may lie between two steps of a range.
    """
    began_s = now_s()
    async with each.breaks():
        while not each.must <= (firing := await server.firing()) and now_s() - began_s < FIRE_S_MAX:
            await asyncio.sleep(1)
    mended_s = now_s()
    while await server.firing() and now_s() - mended_s < MEND_S_MAX:
        await asyncio.sleep(1)
    left = await server.firing()
    report.faults += [f"{each.name}: {name} still fires {MEND_S_MAX:.0f} s after" for name in sorted(left)]
    report.hold(each.name, firing | await server.fired(began_s, now_s()), each.must, each.may)


async def boards(server: Prometheus, report: Report, began_s: float) -> None:
    """Ask every query of every board of what was recorded."""
    for query in QUERIES:
        if not await server.over(query, began_s, now_s()):
            report.faults.append(f"no series: {query}")
    report.say(f"{len(QUERIES)} queries of boards asked")


async def lint(running: Fleet, report: Report) -> None:
    """Let promtool read the fleet's metrics."""
    text = str(await running.get("/metrics"))
    done = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    report.faults += [f"promtool: {line}" for line in (done.stdout + done.stderr).splitlines()]


async def run(folder: Path, report: Report) -> None:
    """The whole drill."""
    workspace = write_workspace(folder / "workspace", FILES)
    with Broker.from_environment(folder / "kafka") as broker:
        site = Site(broker, folder)
        async with Provider() as hook:
            own = {"WORKSPACE": str(workspace), "WEBHOOK_URL": hook.url, "HTTP_ALLOW": "127.0.0.0/8", "CANARY_S": "2"}
            async with (
                fleet(site, **own) as running,
                prometheus(folder / "prometheus", running.url.removeprefix("http://")) as server,
            ):
                yard = Yard(site, running, hook)
                loading = asyncio.create_task(yard.load())
                began_s = now_s()
                await asyncio.sleep(PEACE_S)
                report.hold("peace", await server.fired(began_s, now_s()), set(), set())
                for each in drills(yard):
                    await drill(server, each, report)
                await boards(server, report, began_s)
                await lint(running, report)
                yard.open = False
                await loading


def main() -> int:
    """Run it on a folder of its own; the last line is JSON, the exit code 0 only if all was as it should be."""
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="headrace-alarms-"))
    began_s = now_s()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end what was started, whoever ends this
    try:
        asyncio.run(run(folder, report))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    line = {
        "seconds": round(now_s() - began_s),
        "queries": len(QUERIES),
        "fired": report.fired,
        "faults": report.faults,
    }
    print(json.dumps(line))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
