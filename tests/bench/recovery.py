"""`make recovery-proof`: two workers over a million users; each is restarted as planned, then one killed for good.

The pause of a partition is the longest time without a committed record of it in `currents`, seen from outside by
another client, while events for it come in steadily. State is put into the changelog, as workers would have.
"""

import argparse
import asyncio
import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiokafka.partitioner import murmur2
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from agents.engine.kafka.topics import ensure_topics
from streams.codec import to_json
from streams.profiles.counters import count_once
from streams.profiles.row import encode_row, new_user
from tests.broker.kafka import Broker
from tests.broker.workers import Site, Worker, crew

PARTITIONS: Final = 8
NAMES: Final = ("a", "b")
RESTART_S_MAX: Final = 5.0
TAIL_S_MAX: Final = 5.0
SETTLE_S: Final = 5.0
TRANSACTION_RECORDS: Final = 2_000
WAIT_S_MAX: Final = 240.0
LOOK_S: Final = 0.02
_POSITIVE: Final = 0x7FFFFFFF


def _say(text: str) -> None:
    print(f"recovery: {text}", file=sys.stderr, flush=True)


def _partition(user: str) -> int:
    return int(murmur2(user.encode()) & _POSITIVE) % PARTITIONS


def fill(site: Site, users: int) -> None:
    """Put a row of each user into the changelog."""
    options = {"bootstrap.servers": site.broker.address, "linger.ms": 5, "log_level": 2}
    producer = Producer({**options, "transactional.id": f"{site.app}-filler"})
    producer.init_transactions()
    now_ms = time.time_ns() // 1_000_000
    producer.begin_transaction()
    for number in range(users):
        user, at = f"user-{number}", _partition(f"user-{number}")
        row = new_user(now_ms)
        row.attributes = {"email": f"{user}@example.com", "city": "Hamburg"}
        row.events = {name: count_once(now_ms - number) for name in ("opened", "viewed", "clicked")}
        producer.produce(site.topic("changelog"), encode_row(row), b"u" + at.to_bytes(2, "big") + user.encode(), at)
        if number % TRANSACTION_RECORDS == 0:
            producer.commit_transaction()
            producer.begin_transaction()
    producer.commit_transaction()


class Pulse:
    """Steady events in, and when each partition was last seen to go on."""

    def __init__(self, site: Site, users: int, rate: int) -> None:
        self._site = site
        self._users = users
        self._rate = rate
        self._stop = threading.Event()
        self._seen: dict[int, float] = {}
        self._gaps: dict[int, float] = {}

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Send and watch meanwhile."""
        threads = [threading.Thread(target=self._send), threading.Thread(target=self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def forget(self) -> None:
        """Count gaps from now on."""
        now = time.perf_counter()
        self._seen = dict.fromkeys(range(PARTITIONS), now)
        self._gaps = dict.fromkeys(range(PARTITIONS), 0.0)

    def gap_s(self, partitions: list[int]) -> float:
        """The longest pause of any of them since `forget`, one that goes on included."""
        now = time.perf_counter()
        return max(max(self._gaps[at], now - self._seen[at]) for at in partitions)

    def seen_s(self, partition: int) -> float:
        """When the partition last went on."""
        return self._seen[partition]

    def _send(self) -> None:
        producer = Producer({"bootstrap.servers": self._site.broker.address, "linger.ms": 5, "log_level": 2})
        began, sent = time.perf_counter(), 0
        while not self._stop.is_set():
            while sent < (time.perf_counter() - began) * self._rate:
                user = f"user-{sent * 7919 % self._users}"
                body = {"type": "event", "external_id": user, "name": "viewed", "time": "2026-01-01T00:00:00Z"}
                producer.produce(self._site.topic("events"), to_json(body), user.encode(), _partition(user))
                sent += 1
            producer.poll(0)
            time.sleep(0.005)
        producer.flush()

    def _watch(self) -> None:
        options = {"bootstrap.servers": self._site.broker.address, "group.id": f"{self._site.app}-pulse"}
        consumer = Consumer({**options, "isolation.level": "read_committed", "fetch.wait.max.ms": 20, "log_level": 2})
        consumer.assign([TopicPartition(self._site.topic("currents"), at, OFFSET_END) for at in range(PARTITIONS)])
        while not self._stop.is_set():
            messages = consumer.consume(500, 0.02)
            now = time.perf_counter()
            for at in {message.partition() for message in messages if message.error() is None}:
                if at in self._seen:
                    self._gaps[at] = max(self._gaps[at], now - self._seen[at])
                    self._seen[at] = now
        consumer.close()


async def _flowing(pulse: Pulse) -> None:
    """Wait until every partition has gone on for a while."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            pulse.forget()
            await asyncio.sleep(SETTLE_S)
            if pulse.gap_s(list(range(PARTITIONS))) < SETTLE_S / 2:
                return


async def _resumed(pulse: Pulse, worker: Worker, partitions: list[int], since: float) -> float:
    """Seconds from a moment until the worker holds partitions and each of them has gone on."""
    held = 0.0
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            if not held and set(partitions) <= set(await _held(worker)):
                held = time.perf_counter()
            if held and all(pulse.seen_s(at) > held for at in partitions):
                return time.perf_counter() - since
            await asyncio.sleep(LOOK_S)


async def _opened(workers: list[Worker]) -> None:
    """Wait until both hold partitions, and all of them between them."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            held = [await _held(worker) for worker in workers]
            if all(held) and sorted(chain.from_iterable(held)) == list(range(PARTITIONS)):
                return
            await asyncio.sleep(LOOK_S)


async def _held(worker: Worker) -> list[int]:
    found = await worker.progress()
    return list(found["partitions"]) if found else []


def _worker(site: Site, name: str) -> Worker:
    return Worker(site, name, MEMBER=name, WORKSPACE="", PARTITIONS=str(PARTITIONS))


async def prove(site: Site, users: int, rate: int) -> dict[str, Any]:
    """Restore, restart, kill; the seconds that each took."""
    await ensure_topics(site.settings("a", PARTITIONS=str(PARTITIONS)))
    _say(f"writing {users:,} users of state")
    await asyncio.to_thread(fill, site, users)
    async with crew() as workers:
        _say("starting two workers with empty folders")
        began = time.perf_counter()
        workers += [_worker(site, name) for name in NAMES]
        await _opened(workers)
        result: dict[str, Any] = {"users": users, "rate": rate, "open_s": time.perf_counter() - began}
        pulse = Pulse(site, users, rate)
        with pulse.beating():
            result |= await _restart(site, workers, pulse)
            await _flowing(pulse)
            result |= await _kill(workers, pulse)
    return result


async def _restart(site: Site, workers: list[Worker], pulse: Pulse) -> dict[str, Any]:
    """Stop the workers one after the other as a deployment does, and start each again under its name; the worst."""
    found: list[dict[str, Any]] = []
    for at, name in enumerate(NAMES):
        await _flowing(pulse)
        ours, others = await _held(workers[at]), await _held(workers[1 - at])
        _say(f"restarting the worker of partitions {ours}")
        pulse.forget()
        began = time.perf_counter()
        await workers[at].stop()
        stopped = time.perf_counter()
        workers[at] = _worker(site, name)
        await _resumed(pulse, workers[at], ours, began)
        row = {"restart_stop_s": stopped - began, "restart_pause_s": pulse.gap_s(ours)}
        found.append({**row, "restart_pause_of_others_s": pulse.gap_s(others)})
    return {name: max(each[name] for each in found) for name in found[0]}


async def _kill(workers: list[Worker], pulse: Pulse) -> dict[str, Any]:
    """Kill worker a for good."""
    lost = await _held(workers[0])
    _say(f"killing the worker of partitions {lost}")
    pulse.forget()
    began = time.perf_counter()
    workers[0].signal(signal.SIGKILL)
    resumed_s = await _resumed(pulse, workers[1], list(range(PARTITIONS)), began)
    return {"failover_s": resumed_s, "failover_pause_s": pulse.gap_s(list(range(PARTITIONS)))}


def main(argv: list[str] | None = None) -> int:
    """Print the figures as one JSON line; 1 when one is above what was wanted."""
    parser = argparse.ArgumentParser(prog="make recovery-proof ARGS=…", description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=400, help="events per second meanwhile")
    parser.add_argument("--session", type=float, default=12.0, help="HEADRACE_SESSION_S; 12 is its default")
    parser.add_argument("--standby", action="store_true", help="each worker follows the other's partitions")
    arguments = parser.parse_args(argv)
    folder = TemporaryDirectory(prefix="recovery-")
    with folder as path, Broker.from_environment(Path(path) / "kafka") as broker:
        site = Site(
            broker, Path(path), more=(("SESSION_S", str(arguments.session)), ("STANDBY", str(arguments.standby)))
        )
        found = asyncio.run(prove(site, arguments.users, arguments.rate)) | {"session_s": arguments.session}
    is_kept = found["restart_pause_s"] < RESTART_S_MAX and found["failover_s"] < arguments.session + TAIL_S_MAX
    print(json.dumps({name: round(each, 2) if isinstance(each, float) else each for name, each in found.items()}))
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
