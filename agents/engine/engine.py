"""The engine of one process: store, transport, slices and the Faust app they serve."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import faust
import structlog

from agents.engine.driver import PromptTableManager, SliceSchema, register_driver
from agents.engine.embedded import EmbeddedTransport
from agents.engine.lanes import Lanes
from agents.engine.slices import Place, Slice, Slices
from config.clock import Clock
from config.settings import Settings
from streams import topics
from tables.store import Store

Handle = Callable[[Slice], Coroutine[Any, Any, None]]


class Engine:
    """Owns what a process has one of. Agents are registered on it before `start`."""

    def __init__(self, settings: Settings, clock: Clock, store: Store, faust_data: Path) -> None:
        """Wire the parts; nothing runs yet."""
        self.settings = settings
        self.clock = clock
        self.store = store
        self.transport = EmbeddedTransport(store, clock, settings.app, settings.partitions)
        self.slices = Slices(self.transport)
        self.log = structlog.get_logger("headrace")
        self.failure: asyncio.Future[BaseException] | None = None
        self._lanes: list[Lanes] = []
        self._positions: dict[str, Callable[[str, int], int]] = {}
        self.app = _faust_app(settings, faust_data)
        vars(self.app)["headrace"] = self  # how the driver, which Faust makes, finds its engine

    def place_of(self, tp: Any) -> Place:
        """The topic's short name and partition of one of Faust's topic partitions."""
        return tp.topic.removeprefix(self.settings.app + "."), tp.partition

    def agent(
        self, name: str, read: list[topics.Topic], position_of: Callable[[str, int], int], handle: Handle
    ) -> None:
        """Register a Faust agent that reads whole slices of topics.

        Args:
            name: the agent's name in Faust's `agents` command, and its label in metrics.
            read: the topics.
            position_of: (topic, partition) -> the offset that the agent's own state continues at.
            handle: processes and commits one slice; slices of one partition never overlap.
        """
        lanes = Lanes(handle, self.fail)
        self._lanes.append(lanes)

        async def agent(stream: Any) -> None:
            async for piece in stream:
                lanes.give(piece)

        names = [f"{self.settings.app}.{topic.name}" for topic in read]
        channel = self.app.topic(*names, schema=SliceSchema())
        self.app.agent(channel, name=name)(agent)
        for topic in read:
            self._positions[topic.name] = position_of
            for partition in range(self.settings.partitions):
                self.slices.assign((topic.name, partition), position_of(topic.name, partition))

    async def start(self) -> None:
        """Start Faust; slices flow when it has assigned the partitions."""
        self.failure = asyncio.get_running_loop().create_future()
        await self.app.start()

    def kept_from(self, topic: str, partition: int) -> int:
        """The offset from which a restart would read on; the end of the partition where no agent reads."""
        position_of = self._positions.get(topic)
        return self.transport.end(topic, partition) if position_of is None else position_of(topic, partition)

    def fail(self, error: BaseException) -> None:
        """Something must not go on: whoever waits for `failure` ends the process."""
        self.slices.paused = True
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(error)

    async def drain(self, timeout_s: float) -> bool:
        """Stop taking slices and wait for those in flight; False when they did not finish in time."""
        self.slices.paused = True
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self.slices.idle:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    async def stop(self, timeout_s: float = 5.0) -> bool:
        """Finish what is in flight, then stop everything; False when something had to be cut off."""
        drained = await self.drain(timeout_s)
        for lanes in self._lanes:
            await lanes.close()
        self.transport.wake()
        await self.app.stop()
        return drained


def _faust_app(settings: Settings, data: Path) -> faust.App:
    """Faust with everything off that we replace."""
    register_driver()
    return faust.App(
        settings.app,
        broker=settings.broker,
        store="memory://",
        datadir=str(data),
        autodiscover=False,
        web_enabled=False,
        topic_partitions=settings.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=16,
        consumer_auto_offset_reset="earliest",
        logging_config=None,
        TableManager=PromptTableManager,
    )
