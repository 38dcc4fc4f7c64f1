"""The subject on Kafka: its worker processes, fed and watched from outside, on a broker of its own.

Run as `python -m tests.bench.on_kafka '<JSON of subject.Plan>'`; `broker` names a running broker.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from agents.web.control import ControlClient
from config.settings import PREFIX
from streams import topics
from streams.events import JSONValue
from tests.bench.child import ROOT
from tests.bench.subject import PROBE_EVERY, Plan, Result, Stamps, latencies, probe, throughput
from tests.bench.workload import Entry, Stream, definitions, with_probe, write_workspace
from tests.processes import children_of, stat_of

LOOK_S: Final = 0.05
FAR_LOOK_S: Final = 0.5
NEAR_RECORDS: Final = 20_000
TURN_S: Final = 0.001
SETTLE_S: Final = 3.0
START_S_MAX: Final = 120.0
STOP_S_MAX: Final = 20.0
QUEUE_EVENTS_MAX: Final = 5_000


class Door:
    """A producer of events, as a customer would run one."""

    def __init__(self, app: str, address: str) -> None:
        self._topic = f"{app}.{topics.EVENTS.name}"
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "acks": "all", "log_level": 2})

    def send(self, entry: Entry) -> None:
        """Hand one event to the client, which sends it soon."""
        self._producer.produce(self._topic, entry.value, entry.key, entry.partition)
        self._producer.poll(0)

    def send_all(self, entries: Sequence[Entry]) -> None:
        """Send events as fast as the broker takes them, and return when it has them."""
        for number, entry in enumerate(entries, 1):
            self.send(entry)
            if number % QUEUE_EVENTS_MAX == 0:
                self._producer.flush()
        self._producer.flush()


class Site:
    """The product as `app.py worker` runs it: its processes, and its answers over the control socket."""

    def __init__(self, plan: Plan, folder: Path, workspace: Path) -> None:
        """Start it; with several workers the first process supervises them."""
        self.app = f"bench-{secrets.token_hex(4)}"  # a broker of somebody else's may have run others
        self.data = folder / "data"
        own = {
            "APP": self.app,
            "BROKER": plan.broker,
            "DATA": str(self.data),
            "PARTITIONS": str(plan.partitions),
            "WORKERS": str(plan.workers),
            "WORKSPACE": str(workspace),
            "HTTP": "",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment = {**others, **{PREFIX + name: value for name, value in own.items()}}
        command = [sys.executable, str(ROOT / "app.py"), "worker"]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=sys.stderr)
        self._partitions = list(range(plan.partitions))

    async def ask(self, command: str) -> JSONValue:
        """A command's answer."""
        client = await ControlClient.connect(self.data)
        try:
            return await client.ask(command, {})
        finally:
            client.close()

    async def ready(self) -> None:
        """Wait until every partition is open. Raises TimeoutError or RuntimeError when it does not come up."""
        async with asyncio.timeout(START_S_MAX):
            while True:
                if self._process.poll() is not None:
                    raise RuntimeError(f"app.py worker ended with {self._process.returncode}")
                with suppress(OSError):
                    if (await self.ask("progress"))["partitions"] == self._partitions:
                        return
                await asyncio.sleep(LOOK_S)

    async def quiet(self) -> float:
        """Wait until everything is processed; when that was first seen.

        Each question costs the worker several milliseconds, so it is seldom asked before little is left.
        """
        last: Any = None
        seen = 0.0
        while True:
            found = await self.ask("progress")
            if found["behind"] > NEAR_RECORDS:
                await asyncio.sleep(FAR_LOOK_S)
                continue
            if found["idle"] and not found["behind"]:
                if found == last:
                    return seen
                seen = time.perf_counter()
            last = found
            await asyncio.sleep(LOOK_S)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the processes meanwhile, so that a topic can be filled before anybody reads it."""
        for pid in self._pids():
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self._pids():
                os.kill(pid, signal.SIGCONT)

    def cpu_s(self) -> float:
        """Processor seconds of all its processes so far."""
        return sum(map(_cpu_s, self._pids()))

    def _pids(self) -> list[int]:
        """Our process and its children."""
        return [self._process.pid, *children_of(self._process.pid)]

    def stop(self) -> None:
        """End it in good order."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process so far; 0 for none."""
    fields = stat_of(pid) if pid else ["0"] * 13
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _drain(site: Site, door: Door, stream: Stream, plan: Plan) -> Result:
    entries = stream.take(plan.events)
    with site.standing_still():
        await asyncio.to_thread(door.send_all, entries)
        cpu_began, broker_began = site.cpu_s(), _cpu_s(plan.broker_pid)
    began = time.perf_counter()
    await site.quiet()
    await site.ask("flush")
    seconds = time.perf_counter() - began
    cpu_s, broker_s = site.cpu_s() - cpu_began, _cpu_s(plan.broker_pid) - broker_began
    totals = await site.ask("totals")
    applied = sum(int(totals[kind]) for kind in ("purchases", "custom_events", "attributes", "sessions"))
    return {
        **throughput(plan, seconds, cpu_s),
        "broker_us": round(broker_s / plan.events * 1e6, 1) if plan.broker_pid else "-",
        "applied": applied - plan.warm,
    }


async def _latency(site: Site, door: Door, stream: Stream, plan: Plan) -> Result:
    entries = [probe(stream, at) if at % PROBE_EVERY == 0 else stream.take(1)[0] for at in range(plan.events)]
    stamps, stop = Stamps(), threading.Event()
    watchers = [
        threading.Thread(target=_watch_changes, args=(site.app, plan, stamps, stop)),
        threading.Thread(target=_watch_outbox, args=(site.data / "outbox" / "log.jsonl", stamps, stop)),
    ]
    for watcher in watchers:
        watcher.start()
    await asyncio.sleep(SETTLE_S)
    late = await asyncio.to_thread(_send_on_schedule, door, entries, plan.rate, stamps)
    sent_s = time.perf_counter()
    await site.quiet()
    backlog_s = time.perf_counter() - sent_s
    await asyncio.sleep(1)
    stop.set()
    for watcher in watchers:
        watcher.join()
    return latencies(plan, stamps, late, backlog_s)


def _send_on_schedule(door: Door, entries: Sequence[Entry], rate: int, stamps: Stamps) -> list[float]:
    """Send each event at its scheduled time, whatever the system does; returns by how much turns were late."""
    began, at, late = time.perf_counter(), 0, []
    while at < len(entries):
        now = time.perf_counter()
        until = min(len(entries), int((now - began) * rate) + 1)
        if until > at:
            late.append(now - (began + at / rate))
        for index in range(at, until):
            if index % PROBE_EVERY == 0:
                stamps.due[entries[index].key.decode()] = began + index / rate
            door.send(entries[index])
        at = max(at, until)
        time.sleep(TURN_S)
    return late


def _watch_changes(app: str, plan: Plan, stamps: Stamps, stop: threading.Event) -> None:
    """Note when each probe's segment change can be read by a committed reader."""
    consumer = Consumer(
        {
            "bootstrap.servers": _address(plan.broker),
            "group.id": f"{app}-watch",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 25,
            "log_level": 2,
        }
    )
    topic = f"{app}.{topics.SEGMENT_CHANGES.name}"
    consumer.assign([TopicPartition(topic, at, OFFSET_END) for at in range(plan.partitions)])
    while not stop.is_set():
        for message in consumer.consume(500, 0.02):
            key = message.key()
            if isinstance(key, bytes):
                stamps.change(key)
    consumer.close()


def _watch_outbox(path: Path, stamps: Stamps, stop: threading.Event) -> None:
    """Note when each probe's line is in the outbox file."""
    offset, rest = path.stat().st_size if path.exists() else 0, b""
    while not stop.is_set():
        time.sleep(TURN_S)
        if not path.exists():
            continue
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        offset += len(data)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            stamps.send(line)


MODES: Final = {"drain": _drain, "latency": _latency}


def _address(broker: str) -> str:
    return broker.removeprefix("kafka://")


async def measure(plan: Plan, folder: Path) -> Result:
    """Start workers on the plan's broker, warm it up, measure, stop it."""
    files = definitions(plan.job)
    workspace = write_workspace(folder / "workspace", with_probe(files) if plan.mode == "latency" else files)
    site = Site(plan, folder, workspace)
    try:
        await site.ready()
        door = Door(site.app, _address(plan.broker))
        stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
        await asyncio.to_thread(door.send_all, stream.take(plan.warm))
        await site.quiet()
        return await MODES[plan.mode](site, door, stream, plan)
    finally:
        await asyncio.to_thread(site.stop)


def main() -> None:
    """Measure the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(asyncio.run(measure(plan, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
