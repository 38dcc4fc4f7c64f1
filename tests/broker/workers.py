"""Headrace's workers on a broker: started, hit and asked by a test, and what is left when they have ended."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from agents.engine.kafka.restore import restore
from agents.node import Node
from agents.web.control import ControlClient
from config.clock import SystemClock
from config.settings import Settings, load_settings
from config.workspace import DEMO_FOLDER, read_workspace
from streams.codec import to_json
from streams.events import JSONValue
from streams.profiles.row import User, decode_row
from streams.times import DAY_MS, format_time
from tables.partition import UsersView
from tables.store import FAMILIES, Store
from tests.broker.kafka import Broker
from tests.broker.stalled import STACKS, known_of, patience
from tests.driver import Driver

ROOT = Path(__file__).parents[2]
PARTITIONS = 4
WAIT_S_MAX = 60.0
LOOK_S = 0.05
STOP_S_MAX = 30
PART = 50
DISPATCH = re.compile(rb'^X-Headrace-Dispatch: ([0-9a-f]{32})$|"dispatch_id":"([0-9a-f]{32})"', re.MULTILINE)
LOCAL_KEYS = (b"changelog\0", b"lease\0")

Event = dict[str, Any]
State = dict[tuple[str, bytes], bytes]


@dataclass(frozen=True)
class Site:
    """One app on a broker: topics of its own, and one outbox and exports folder for all its workers."""

    broker: Broker
    folder: Path
    app: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:12]}")
    more: tuple[tuple[str, str], ...] = ()

    def environment(self, data: str, **own: str) -> dict[str, str]:
        """What a worker on the data folder of that name finds in its environment."""
        ours = {
            "APP": self.app,
            "BROKER": f"kafka://{self.broker.address}",
            "DATA": str(self.folder / data),
            "PARTITIONS": str(PARTITIONS),
            "WORKSPACE": str(DEMO_FOLDER.absolute()),
            "OUTBOX": str(self.folder / "outbox"),
            "EXPORTS": f"file://{self.folder / 'exports'}",
            "HTTP": "",
            **dict(self.more),
            **own,
        }
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        return {**rest, "PYTHONPATH": str(STACKS), **{f"HEADRACE_{name}": value for name, value in ours.items()}}

    def settings(self, data: str, **own: str) -> Settings:
        """The same, read."""
        return load_settings(self.environment(data, **own))

    def topic(self, name: str) -> str:
        """The full name of a topic."""
        return f"{self.app}.{name}"

    def attempted(self) -> list[str]:
        """Every dispatch id in the outbox, as often as it stands there."""
        files = sorted((self.folder / "outbox").glob("*"))
        return [(a or b).decode() for file in files for a, b in DISPATCH.findall(file.read_bytes())]


class Worker:
    """`app.py worker` as a process; `plan` names a step of `planned_worker` at which it is hit."""

    def __init__(self, site: Site, data: str, *plan: str, **own: str) -> None:
        self.data = site.folder / data
        self._site = site
        self._errors = site.folder / f"{data}.log"
        module = ["-m", "tests.broker.planned_worker", *plan]
        with self._errors.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(module if plan else ["app.py", "worker"])],
                cwd=ROOT,
                env=site.environment(data, **own),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ask(self, command: str, **args: Any) -> JSONValue:
        """One command's answer; raises OSError while it does not listen."""
        client = await ControlClient.connect(self.data)
        try:
            return await client.ask(command, args)
        finally:
            client.close()

    async def progress(self) -> dict[str, Any] | None:
        """How far it is; None while it does not listen."""
        if self.process.poll() is not None:
            raise AssertionError(f"the worker ended with {self.process.returncode}\n{self.errors()}")
        try:
            found: dict[str, Any] = await self.ask("progress")
        except OSError:
            return None
        return found

    def signal(self, number: signal.Signals) -> None:
        """Hit it."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code, when it has ended. Raises AssertionError, with what is known, for one that does not end."""
        async with waiting_for([self], "the end of the worker", STOP_S_MAX):
            while self.process.poll() is None:  # noqa: ASYNC110 - another process ends
                await asyncio.sleep(LOOK_S)
        return self.process.returncode

    async def stop(self) -> None:
        """Stop it in good order."""
        self.signal(signal.SIGTERM)
        assert await self.ended() == 0, self.errors()

    def errors(self) -> str:
        """The last of what it said."""
        return self._errors.read_text()[-3_000:]

    def known(self) -> str:
        """What it said and waits for, and how the broker sees it."""
        pid = None if self.process.poll() is not None else self.process.pid
        return known_of(self._site.broker.address, self._site.app, [self._errors], [pid])

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@asynccontextmanager
async def crew() -> AsyncIterator[list[Worker]]:
    """A list for workers; those that still run at the end are killed."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def waiting_for(workers: Iterable[Worker], what: str, seconds: float = WAIT_S_MAX) -> AbstractAsyncContextManager[None]:
    """A limit for the body; whoever passes it is told all that is known of the workers."""
    return patience(seconds, what, lambda: "\n".join(worker.known() for worker in workers))


async def opened(workers: Sequence[Worker], partitions: int = PARTITIONS) -> None:
    """Wait until the workers hold all partitions between them, each at least one."""
    async with waiting_for(workers, "all partitions are open"):
        while True:
            held = [found["partitions"] if (found := await worker.progress()) else [] for worker in workers]
            if all(held) and sorted(chain.from_iterable(held)) == list(range(partitions)):
                return
            await asyncio.sleep(LOOK_S)


async def settled(*workers: Worker, partitions: int = PARTITIONS) -> None:
    """Wait until every record has been processed: the same twice, since workers write to one another."""
    last: Any = None
    async with waiting_for(workers, "every record is processed"):
        while True:
            found = [await worker.progress() for worker in workers]
            answers = [answer for answer in found if answer]
            still = len(answers) == len(found) and all(each["idle"] and not each["behind"] for each in answers)
            held = chain.from_iterable(each["partitions"] for each in answers)
            if still and sorted(held) == list(range(partitions)):
                if found == last:
                    return
                last = found
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def node_on(site: Site, data: str = "data", **own: str) -> AsyncIterator[Node]:
    """A worker inside this process, stopped in good order at the end."""
    node = Node(site.settings(data, **own), SystemClock())
    node.wire()
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


async def quiet(node: Node) -> None:
    """Wait until it has processed every record."""
    async with asyncio.timeout(WAIT_S_MAX):
        await node.quiesce()


def arrivals(users: int) -> list[tuple[str, Event]]:
    """Each user's first record: an address, without which no mail can be sent."""
    names = [f"user-{number}" for number in range(users)]
    return [(each, {"type": "attributes", "external_id": each, "email": f"{each}@example.com"}) for each in names]


def purchases(count: int, users: int, seed: int) -> list[tuple[str, Event]]:
    """Users and their purchases, none within hours of the edge of a window.

    They carry no ids: what is folded twice must count twice, or nobody would notice.
    """
    dice, now_ms = random.Random(seed), SystemClock().now_ms()
    made = []
    for _ in range(count):
        user = f"user-{dice.randrange(users)}"
        time_ms = now_ms - dice.randrange(1, 300) * DAY_MS + DAY_MS // 2
        body = {"type": "purchase", "external_id": user, "time": format_time(time_ms)}
        made.append((user, {**body, "product_id": "cd", "currency": "USD", "price": dice.randrange(6_000) / 100}))
    return made


def producer_of(site: Site, **options: Any) -> Producer:
    """A producer of librdkafka; by default it sends to the partition that Java's would choose."""
    default = {"partitioner": "murmur2_random", "enable.idempotence": True}
    return Producer({"bootstrap.servers": site.broker.address, **default, **options})


def produce(site: Site, events: Iterable[tuple[str, Event]], producer: Producer | None = None) -> None:
    """Send events, and return when the broker has them."""
    sender = producer or producer_of(site)
    failed: list[Any] = []
    for user, event in events:
        sender.produce(
            site.topic("events"),
            to_json(event),
            user.encode(),
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        sender.poll(0)
    assert sender.flush(WAIT_S_MAX) == 0
    assert not failed


async def produce_slowly(site: Site, events: list[tuple[str, Event]], seconds: float) -> None:
    """Send events in small parts spread over so many seconds."""
    sender = producer_of(site)
    for at in range(0, len(events), PART):
        await asyncio.to_thread(produce, site, events[at : at + PART], sender)
        await asyncio.sleep(seconds * PART / len(events))


def model_of(events: Iterable[tuple[str, Event]]) -> Driver:
    """The same events through the pipeline in memory."""
    driver = Driver(read_workspace(DEMO_FOLDER))
    driver.now_ms = SystemClock().now_ms()
    for user, event in events:
        driver.send(event, user.encode())
    return driver


Profile = tuple[int, dict[str, Any], dict[str, int], list[str]]


def profile(row: bytes) -> Profile:
    """What is counted, summed and decided of a user, without the times that differ from run to run."""
    user: User = decode_row(row)
    count = user.purchases.count if user.purchases else 0
    events = {name: counter.count for name, counter in sorted(user.events.items())}
    return count, dict(user.money), events, sorted(user.memberships)


def modelled(driver: Driver) -> dict[str, Profile]:
    """Every user's profile as the model has it."""
    return {user: profile(row) for rows in driver.rows for user, row in rows.stored.items()}


async def remembered(site: Site, name: str = "remembered") -> dict[str, Profile]:
    """Every user's profile as the changelog alone gives it; all workers have ended."""
    store = Store(site.folder / name)
    try:
        for partition in range(PARTITIONS):
            await restore(site.settings(name), store, partition, SystemClock().now_ms())
        view = UsersView(store)
        return {user: profile(row) for partition in range(PARTITIONS) for user, row in view.raw(partition)}
    finally:
        store.close()


def stored(data: Path) -> State:
    """Everything in a closed data folder but what says how it came there."""
    store = Store(data / "db")
    try:
        return {
            (family, key): value
            for family in FAMILIES
            for key, value in store.scan(family, b"", b"\xff" * 64)
            if not (family == "meta" and key.startswith(LOCAL_KEYS))
        }
    finally:
        store.close()


def exactly_once(site: Site, driver: Driver) -> None:
    """Hold the outbox to the model: each of its sends stands there once, and nothing else does."""
    assert driver.sends
    found, wanted = Counter(site.attempted()), Counter(send.dispatch_id for send in driver.sends)
    assert found == wanted, {"too many": found - wanted, "missing": wanted - found}
