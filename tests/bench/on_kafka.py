"""The subject on Kafka: a fleet of worker processes, fed and watched from outside, on a broker of its own.

Run as `python -m tests.bench.on_kafka '<JSON of subject.Plan>'`; `broker` names a running broker.
"""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from agents.fleet import Fleet
from config.logging import set_up_logging
from config.settings import Settings
from streams import topics
from tests.bench.child import ROOT
from tests.bench.subject import PROBE_EVERY, Plan, Result, Stamps, latencies, probe, throughput
from tests.bench.workload import Entry, Stream, definitions, with_probe, write_workspace

LOOK_S: Final = 0.05
TURN_S: Final = 0.001
SETTLE_S: Final = 3.0
QUEUE_EVENTS_MAX: Final = 5_000


class _Door:
    """A producer of events, as a customer would run one."""

    def __init__(self, settings: Settings, address: str) -> None:
        self._topic = f"{settings.app}.{topics.EVENTS.name}"
        self._producer = Producer({"bootstrap.servers": address, "linger.ms": 1, "acks": "all", "log_level": 2})

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


def _workers(fleet: Fleet) -> list[int]:
    return [worker.process.pid for worker in fleet._workers if worker.process is not None]


@contextmanager
def _standing_still(fleet: Fleet) -> Iterator[None]:
    """Stop the workers' processes meanwhile, so that a topic can be filled before anybody reads it."""
    for pid in _workers(fleet):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in _workers(fleet):
            os.kill(pid, signal.SIGCONT)


def _cpu_s(fleet: Fleet) -> float:
    """Processor seconds of all workers so far."""
    ticks = 0
    for pid in _workers(fleet):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _quiet(fleet: Fleet) -> float:
    """Wait until everything is processed; when that was first seen."""
    last: Any = None
    seen = 0.0
    while True:
        found = await fleet.ask("progress", {})
        if found["idle"] and not found["behind"]:
            if found == last:
                return seen
            seen = time.perf_counter()
        last = found
        await asyncio.sleep(LOOK_S)


async def _drain(fleet: Fleet, door: _Door, stream: Stream, plan: Plan) -> Result:
    entries = stream.take(plan.events)
    with _standing_still(fleet):
        await asyncio.to_thread(door.send_all, entries)
        cpu_began = _cpu_s(fleet)
    began = time.perf_counter()
    await _quiet(fleet)
    await fleet.ask("flush", {})
    seconds = time.perf_counter() - began
    totals = await fleet.ask("totals", {})
    applied = sum(int(totals[kind]) for kind in ("purchases", "custom_events", "attributes", "sessions"))
    return {**throughput(plan, seconds, _cpu_s(fleet) - cpu_began), "applied": applied - plan.warm}


async def _latency(fleet: Fleet, door: _Door, stream: Stream, plan: Plan) -> Result:
    entries = [probe(stream, at) if at % PROBE_EVERY == 0 else stream.take(1)[0] for at in range(plan.events)]
    stamps, stop = Stamps(), threading.Event()
    watchers = [
        threading.Thread(target=_watch_changes, args=(fleet.settings, plan.broker, stamps, stop)),
        threading.Thread(target=_watch_outbox, args=(fleet.settings.outbox_folder / "log.jsonl", stamps, stop)),
    ]
    for watcher in watchers:
        watcher.start()
    await asyncio.sleep(SETTLE_S)
    late = await asyncio.to_thread(_send_on_schedule, door, entries, plan.rate, stamps)
    sent_s = time.perf_counter()
    await _quiet(fleet)
    backlog_s = time.perf_counter() - sent_s
    await asyncio.sleep(1)
    stop.set()
    for watcher in watchers:
        watcher.join()
    return latencies(plan, stamps, late, backlog_s)


def _send_on_schedule(door: _Door, entries: Sequence[Entry], rate: int, stamps: Stamps) -> list[float]:
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


def _watch_changes(settings: Settings, broker: str, stamps: Stamps, stop: threading.Event) -> None:
    """Note when each probe's segment change can be read by a committed reader."""
    consumer = Consumer(
        {
            "bootstrap.servers": _address(broker),
            "group.id": "bench",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
            "log_level": 2,
        }
    )
    topic = f"{settings.app}.{topics.SEGMENT_CHANGES.name}"
    consumer.assign([TopicPartition(topic, at, OFFSET_END) for at in range(settings.partitions)])
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
    """Start a fleet on the plan's broker, warm it up, measure, stop it."""
    files = definitions(plan.job)
    workspace = write_workspace(folder / "workspace", with_probe(files) if plan.mode == "latency" else files)
    settings = Settings(
        app="bench",
        broker=plan.broker,
        data=folder / "data",
        partitions=plan.partitions,
        workers=plan.workers,
        workspace=workspace,
        http="",
    )
    os.environ["HEADRACE_APP"], os.environ["HEADRACE_BROKER"] = settings.app, plan.broker
    os.environ["HEADRACE_PARTITIONS"] = str(plan.partitions)
    fleet = Fleet(settings, [sys.executable, str(ROOT / "app.py"), "worker", "--supervised"])
    await fleet.start()
    try:
        door = _Door(settings, _address(plan.broker))
        stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
        await asyncio.to_thread(door.send_all, stream.take(plan.warm))
        await _quiet(fleet)
        return await MODES[plan.mode](fleet, door, stream, plan)
    finally:
        await fleet.stop()


def main() -> None:
    """Measure the plan given as the first argument."""
    set_up_logging()
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(asyncio.run(measure(plan, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
