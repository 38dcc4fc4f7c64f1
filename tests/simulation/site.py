"""A site: workers of one app on a virtual loop, killed, frozen and started again as the seed says."""

from __future__ import annotations

import asyncio
import os
import random
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents import node as node_module
from agents import retention, users
from agents.delivery import agent as delivery_module
from agents.delivery.providers import providers_of
from agents.engine import engine as engine_module
from agents.engine.embedded import EmbeddedTransport
from agents.engine.slices import Slice, Slices
from agents.node import Node
from channels import smtp
from channels.calls import PER_HOST_MAX, Calls
from channels.channel import Provider, Receipt, Request
from channels.outbox import Outbox
from channels.sinks import avro_files
from config.settings import Settings
from streams import exports
from streams.engagement import SigningKeys
from streams.errors import HeadraceError
from streams.records import Record
from tests.simulation.disk import Disk, MemoryStore
from tests.simulation.disk import Op as Op_
from tests.simulation.loop import Killed, Process, VirtualLoop
from tests.simulation.runtime import FaustStandIn, Nowhere, Unwatched, stopwatches
from tests.simulation.workload import APP, EPOCH_MS, PARTITIONS, Op
from tests.simulation.world import Endpoint, MailClient, World

RESTART_S = 0.5
RETRY_S = 0.3
LOOSE = 0.4
"""Of all seeds: state that `forward` was given comes later than its outputs."""

LATER_S = 1.0
INTAKE_POSITION = b"next\0intake"


class Broken(AssertionError):
    """A law was seen broken while the run was going on."""


class SiteClock:
    """The machine's clock: virtual time, and how far it was set wrong."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def now_ms(self) -> int:
        return EPOCH_MS + round((self._site.loop.time() + self._site.skew_s) * 1000)


class Watched:
    """A provider, and before each of its attempts a look at what the laws ask for."""

    def __init__(self, real: Provider, site: Site, node: Callable[[], Node]) -> None:
        self._real, self._site, self._node = real, site, node
        self.name, self.limits = real.name, real.limits

    async def attempt(self, request: Request) -> Receipt:
        process = Process.current()
        if process is not None and not process.alive:
            raise Killed("an attempt after death")
        self._site.on_attempt(self._node(), request)
        return await self._real.attempt(request)

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        return await self._real.settle(requests)

    async def close(self) -> None:
        await self._real.close()


class Site:
    """One embedded worker and its machine; the Kafka shape builds on it."""

    def __init__(self, loop: VirtualLoop, dice: random.Random, folder: Path, workspace: Path) -> None:
        self.loop, self.dice, self.folder = loop, dice, folder
        self.workspace = workspace
        self.world = World(loop)
        self.disks: dict[int, Disk] = {}
        self.made: dict[int, Node] = {}
        self.nodes: dict[int, Node] = {}
        self.processes: dict[int, Process] = {}
        self.broken: list[str] = []
        self.skew_s = 0.0
        self.over = False
        self.lives = 0
        self.power: set[int] = set()
        self.released = 0
        self.on_attempt: Callable[[Node, Request], None] = lambda node, request: None
        self.on_take: Callable[[Slices, Slice], None] = lambda slices, piece: None
        self.is_loose = dice.random() < LOOSE
        self.on_power: Callable[[int], None] = lambda kept: None
        self._keepers: list[asyncio.Task[None]] = []

    # ---- processes

    def settings_of(self, number: int) -> Settings:
        return Settings(
            app=APP,
            data=self.folder,
            partitions=PARTITIONS,
            workspace=self.workspace,
            http="",
            smtp="smtp://mail.example:25",
            webhook_url="https://hooks.example/in",
            signing_key="one key for every life: nothing is by chance",
        )

    def start(self, workers: int = 1) -> None:
        """Keep so many workers running from now on."""
        for number in range(workers):
            self.disks[number] = Disk()
            self._keepers.append(self.loop.create_task(self._keep(number)))

    async def _keep(self, number: int) -> None:
        """Start a worker, again and again, until the run is over."""
        while not self.over:
            self.lives += 1
            process = self.processes[number] = self.loop.new_process(f"w{number}.{self.lives}")
            self.loop.trace("start", process.name)
            life = process.start(self._live(number, process))
            await asyncio.wait([life, process.died], return_when=asyncio.FIRST_COMPLETED)
            if life.done() and process.alive:
                self.failed(process, life.exception())
            process.kill()
            self.nodes.pop(number, None)
            self.ended(number, process)
            if number in self.power:
                self.power.discard(number)
                lost = self.disks[number].cut_power(self.dice)
                self.loop.trace("lost", lost)
                self.on_power(len(self.disks[number].batches))
            await asyncio.sleep(self.dice.random() * RESTART_S)

    async def _live(self, number: int, process: Process) -> None:
        node = Node(self.settings_of(number), SiteClock(self))
        self.made[number] = node  # it may attempt something before it says that it is there
        node.wire()
        await node.start()
        self.nodes[number] = node
        self.started(number, node)
        assert node.failure is not None
        raise await node.failure

    def started(self, number: int, node: Node) -> None:
        """A worker is there."""

    def ended(self, number: int, process: Process) -> None:
        """A worker is gone."""

    def failed(self, process: Process, error: BaseException | None) -> None:
        """A worker ended by itself: nothing that was planned may make it."""
        self.loop.trace("failed", repr(error))
        self.broken.append(f"{process.name} stopped by itself: {error!r}")

    def kill(self, number: int = 0, *, power: bool = False) -> None:
        """End a worker as kill -9 does, or as a power cut does."""
        process = self.processes[number]
        self.loop.trace("kill", process.name, power)
        if power:
            self.power.add(number)
        process.kill()

    def freeze(self, number: int, seconds: float) -> None:
        """Stop a worker for a while, as SIGSTOP does."""
        process = self.processes[number]
        if process.frozen:
            return
        self.loop.trace("freeze", process.name)
        process.frozen = True
        self.loop.call_later(seconds, self.loop.thaw, process)

    # ---- what happens from outside

    async def within(self, number: int, work: Callable[[Node], Any]) -> Any:
        """Run something in a worker; None when it died before it ended, or is not there. Raises what it raised."""
        process, node = self.processes.get(number), self.nodes.get(number)
        if process is None or node is None or not process.alive:
            return None
        task = process.start(work(node))
        await asyncio.wait([task, process.died], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() and process.alive else None

    async def do(self, op: Op) -> None:
        """Carry out one operation; a record is sent until a worker has taken it."""
        await asyncio.sleep(max(0.0, op.at_s - self.loop.time()))
        if op.command == "append":
            await self.append(op)
            return
        number = self.dice.randrange(len(self.disks))
        try:
            answer = await self.within(number, lambda node: node.ask(op.command, op.args))
        except HeadraceError as error:
            answer = error
        if op.command == "release" and answer:
            self.released += 1
        self.loop.trace(op.command, *op.args.values(), answer)

    async def append(self, op: Op) -> None:
        """Through the worker, as its door does."""
        row = ["events", op.partition, op.key and b64encode(op.key).decode(), b64encode(op.value).decode()]
        while True:
            answer = await self.within(0, lambda node: node.ask("append", {"outputs": [row]}))
            if answer == 1:
                op.must, op.acked_at = True, len(self.disks[0].batches)
                return
            await asyncio.sleep(RETRY_S)

    # ---- the places where the product would touch the machine

    def replacements(self) -> list[tuple[object, str, object]]:
        """What stands in for the machine while this site lives."""
        dice = self.dice
        slice_records = dice.choice((1, 2, 5, 500))
        real_finish, real_append, real_link = Slices.finish, Outbox._append, avro_files._link

        def store(path: Path, memory: float = 1.0) -> MemoryStore:
            process = Process.current()
            assert process is not None
            number = next(number for number, each in self.processes.items() if each is process)
            return MemoryStore(self.disks[number], process, self.loop)

        def faust_app(settings: Settings, data: Path) -> FaustStandIn:
            return FaustStandIn(self.on_take)

        def read(transport: EmbeddedTransport, topic: str, partition: int, offset: int) -> list[Record]:
            return transport._log.read(topic, partition, offset, slice_records)

        def finish(slices: Slices, piece: Slice) -> None:
            real_finish(slices, piece)
            self.on_take(slices, piece)

        def append(box: Outbox, requests: list[Request], since: int, *, check: bool) -> None:
            _step("before append")
            real_append(box, requests, since, check=check)
            _step("after append")

        def link(aside: Path, path: Path) -> bool:
            _step("before link")
            is_ours = real_link(aside, path)
            _step("after link")
            return is_ours

        MailClient.world = self.world
        return [
            (node_module, "Store", store),
            (node_module, "DataFolder", Nowhere),
            (node_module, "HttpServer", Nowhere),
            (node_module, "ControlServer", Nowhere),
            (node_module, "Watchdog", Unwatched),
            (node_module, "providers_of", self._providers),
            (node_module, "set_up_interpreter", _nothing),
            (node_module, "QUIET_LOOK_S", 0.25),
            (engine_module, "_faust_app", faust_app),
            (EmbeddedTransport, "read", read),
            (Slices, "finish", finish),
            (smtp, "SMTP", MailClient),
            (Outbox, "_append", append),
            (os, "fsync", _nothing),
            (avro_files, "_link", link),
            (exports, "AGE_MAX_MS", 2_500),
            (exports, "ROWS_MAX", dice.choice((2, 5, 50))),
            (retention, "LOOK_S", 3.0),
            (users, "EFFECTS_MAX", dice.choice((1, 3, 600))),
            (users, "ROWS_MAX", dice.choice((1, 3, 300))),
            (delivery_module, "PART_SENDS", dice.choice((1, 2, 64))),
            *(loosely() if self.is_loose else ()),
            *stopwatches(self.loop.stopwatch),
        ]

    def _providers(self, settings: Settings, keys: SigningKeys = ()) -> dict[str, Provider]:
        """The product's own providers, but that webhooks go to the world's endpoint."""
        real = providers_of(settings.model_copy(update={"webhook_url": None}), keys)
        assert PER_HOST_MAX
        real["webhook"] = Calls(Endpoint(self.world))  # type: ignore[arg-type]
        process = Process.current()
        assert process is not None
        number = next(number for number, each in self.processes.items() if each is process)
        return {name: Watched(each, self, lambda: self.made[number]) for name, each in real.items()}


def loosely() -> list[tuple[object, str, object]]:
    """A transport that uses what `forward` allows, as Kafka's does: outputs at once, their state some time later."""
    commit = EmbeddedTransport.commit

    def kept_back(transport: EmbeddedTransport) -> dict[int, list[Op_]]:
        found: dict[int, list[Op_]] = vars(transport).setdefault("_kept_back", {})
        return found

    async def with_the_rest(transport: EmbeddedTransport, partition: int, batch: Any, outputs: Any) -> None:
        if any(op[2].startswith(INTAKE_POSITION) for op in batch.ops):  # an older one may not come after it
            batch.ops[:0] = kept_back(transport).pop(partition, [])
        await commit(transport, partition, batch, outputs)

    async def forward(transport: EmbeddedTransport, partition: int, batch: Any, outputs: Any) -> None:
        kept_back(transport).setdefault(partition, []).extend(batch.ops)
        await commit(transport, partition, transport.batch(), outputs)
        asyncio.get_running_loop().call_later(LATER_S, later, transport, partition)

    def later(transport: EmbeddedTransport, partition: int) -> None:
        batch: Any = transport.batch()
        batch.ops = kept_back(transport).pop(partition, [])
        if batch.ops:
            transport._store.write(batch)

    return [(EmbeddedTransport, "commit", with_the_rest), (EmbeddedTransport, "forward", forward)]


def _step(kind: str) -> None:
    process = Process.current()
    if process is not None:
        if not process.alive:
            raise Killed(kind)
        process.step(kind)


def _nothing(*args: object) -> None:
    """Instead of what only a real process wants."""
