"""The engine of one process: store, transport, slices and the Faust app they serve."""

import asyncio
from pathlib import Path
from typing import Any, Final, Protocol, cast

import faust
import structlog

from agents.engine.agent import Agent
from agents.engine.driver import PromptTableManager, SliceSchema, register_driver
from agents.engine.embedded import EmbeddedTransport
from agents.engine.lanes import Lanes
from agents.engine.pace import Pace
from agents.engine.slices import Slice, Slices
from agents.engine.transport import Transport
from config import metrics
from config.clock import Clock
from config.settings import Settings
from streams.errors import OutsideFailing, Revoked
from streams.records import Place
from tables.store import Store

DRAIN_S_MAX: Final = 3.0
DRAIN_LOOK_S: Final = 0.005

Positions = dict[tuple[str, Place], int]
"""By the reader's name and the place."""


class Copies(Protocol):
    """Who keeps copies of the partitions that this process does not hold."""

    async def release(self, partition: int) -> None:
        """It is about to be opened here."""

    def follow(self, partition: int) -> None:
        """It was closed here."""


class Engine:
    """Owns what a process has one of. Agents are registered on it before `start`."""

    def __init__(self, settings: Settings, clock: Clock, store: Store, faust_data: Path) -> None:
        """Wire the parts; nothing runs yet."""
        self.settings = settings
        self.clock = clock
        self.store = store
        self.pace = Pace()
        self.transport = self._transport(store)
        self.slices = Slices(self.transport)
        self.log = structlog.get_logger("headrace")
        self.failure: asyncio.Future[BaseException] | None = None
        self.held: set[int] = set()
        self.agents: list[Agent] = []
        self.standby: Copies | None = None
        self._lanes: list[Lanes] = []
        self._wanted: set[int] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self.app = _faust_app(settings, faust_data)
        vars(self.app)["headrace"] = self  # how the driver, which Faust makes, finds its engine

    def _transport(self, store: Store) -> Transport:
        settings = self.settings
        if not settings.on_kafka:
            return EmbeddedTransport(store, self.clock, settings.app, settings.partitions, self.fail)
        from agents.engine.kafka.transport import KafkaTransport  # noqa: PLC0415  # only where it is used

        return KafkaTransport(settings, store, self.clock, self.pace, self.fail)

    def place_of(self, tp: Any) -> Place:
        """The topic's short name and partition of one of Faust's topic partitions."""
        return tp.topic.removeprefix(self.settings.app + "."), tp.partition

    def register(self, agent: Agent) -> None:
        """Make an agent one of Faust's, by its name, that reads whole slices of its topics."""

        async def handle(piece: Slice) -> None:
            if piece.partition not in self.held:
                return  # it was given up while the slice waited: its next owner takes it
            if piece.records:
                await agent.handle(piece)
            else:  # asked now, since the partition may have been elsewhere meanwhile
                finished = self.slices.finished((piece.topic, piece.partition), agent.name)
                await agent.keep(piece.topic, piece.partition, finished)

        lanes = Lanes(handle, self.fail, self.pace)
        self.agents.append(agent)
        self._lanes.append(lanes)

        async def run(stream: Any) -> None:
            async for piece in stream:
                lanes.give(piece._replace(reader=agent.name))

        names = [f"{self.settings.app}.{topic.name}" for topic in agent.reads]
        channel = self.app.topic(*names, schema=SliceSchema())
        self.app.agent(channel, name=agent.name)(run)

    async def start(self) -> None:
        """Start Faust; slices flow as soon as it has assigned partitions and they are open."""
        self.failure = asyncio.get_running_loop().create_future()
        await self.app.start()

    async def ready(self) -> None:
        """Wait until the first assigned partitions are open; raises what made the engine stop before."""
        assert self.failure is not None
        opened: asyncio.Future[Any] = asyncio.ensure_future(self._opened.wait())
        ended = cast("asyncio.Future[Any]", self.failure)
        await asyncio.wait([opened, ended], return_when=asyncio.FIRST_COMPLETED)
        opened.cancel()
        if self.failure.done():
            raise self.failure.result()

    def hold(self, partitions: set[int]) -> None:
        """Own exactly these partitions from now on; they are closed and opened in the background.

        What is held already stays open, once the transport has claimed it again.
        """
        self.slices.paused = True
        self._wanted = partitions
        metrics.REBALANCES.inc()
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._change())

    async def _change(self) -> None:
        """Close and open partitions one by one until those held are those wanted; then slices flow.

        Not before all that was in flight has landed: the rewind would have it handled a second time. What is
        wanted may change at every pause.
        """
        try:
            while self._wanted is not None:
                wanted = self._wanted
                if self.held - wanted:
                    self.transport.abandon(min(self.held - wanted))
                    await self._close(min(self.held - wanted))
                elif wanted - self.held:
                    await self._open(min(wanted - self.held))
                elif not self._landed:
                    await self.transport.reclaim()  # a slice that lasts must be able to commit
                    await asyncio.sleep(DRAIN_LOOK_S)
                else:
                    await self.transport.reclaim()
                    if self._wanted == wanted:
                        self._flow()
                        return
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.fail(error)
            raise

    @property
    def _landed(self) -> bool:
        """Whether no slice is being handled, or waits for it."""
        return all(lanes.idle for lanes in self._lanes)

    def _flow(self) -> None:
        self.slices.rewind()
        self.transport.follow(self.slices.positions)
        for agent in self.agents:
            agent.go_on()
        self.slices.paused = False
        self._opened.set()
        self.transport.wake()

    async def _open(self, partition: int) -> None:
        if self.standby is not None:
            await self.standby.release(partition)
        await self.transport.open(partition)
        for agent in self.agents:
            await agent.open(partition)
            for topic in agent.reads:
                self.slices.assign((topic.name, partition), agent.position(topic.name, partition), agent.name)
        self.held.add(partition)

    async def _close(self, partition: int) -> None:
        self.held.discard(partition)
        for agent in self.agents:
            for topic in agent.reads:
                self.slices.revoke((topic.name, partition))
            await agent.close(partition)
        await self.transport.close(partition)
        if self.standby is not None:
            self.standby.follow(partition)

    async def release(self) -> None:
        """Partitions may go to others: stop taking slices, and finish those in flight within the budget.

        What does not finish is not committed here any more where the partition goes to another worker.
        """
        self._wanted = None
        await self.drain(DRAIN_S_MAX)
        await asyncio.gather(*(agent.rest() for agent in self.agents))
        if self._opening is not None:
            await self._opening
        await self.transport.suspend()

    async def watch_faust(self) -> None:
        """Raise what made Faust give up: it would stay silent otherwise."""
        await self.app._crashed.wait()
        raise OutsideFailing(f"Faust stopped: {self.app.crash_reason!r}")

    @property
    def assigned(self) -> set[int] | None:
        """The partitions that this process is to hold; None while that is being decided."""
        return self._wanted

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight, and no partition is about to be opened or closed."""
        return self.held == self._wanted and not self.slices.paused and self._landed

    def kept_from(self, topic: str, partition: int) -> int | None:
        """The offset from which a restart would read on; None where no agent of ours reads."""
        if partition not in self.held:
            return None
        readers = [agent for agent in self.agents if any(read.name == topic for read in agent.reads)]
        return min((agent.position(topic, partition) for agent in readers), default=None)

    async def keep_positions(self, known: Positions) -> Positions:
        """Have readers keep how far they are, where the stored position is the `known` one, and they are further.

        Returns the stored positions, to be known at the next look: what moves by itself needs no commit of its own.
        """
        agents = {agent.name: (agent, lanes) for agent, lanes in zip(self.agents, self._lanes, strict=True)}
        stored: Positions = {}
        for reader, place in list(self.slices.readings()):
            await self.pace.breathe(background=True)
            if place[1] not in self.held:
                continue
            agent, lanes = agents[reader]
            at = stored[reader, place] = agent.position(*place)
            if at < self.slices.finished(place, reader) and known.get((reader, place), at) == at:
                lanes.give(Slice(*place, [], at, reader))
        return stored

    def fail(self, error: BaseException) -> None:
        """Something must not go on: whoever waits for `failure` ends the process."""
        if isinstance(error, Revoked):
            return  # its next owner goes on from the last commit
        self.slices.paused = True
        if self.failure is not None and not self.failure.done():
            self.failure.set_result(error)

    async def drain(self, timeout_s: float) -> bool:
        """Stop taking slices and wait for those in flight; False when they did not finish in time."""
        self.slices.paused = True
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._landed:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(DRAIN_LOOK_S)
        return True

    async def stop(self, timeout_s: float = 5.0) -> bool:
        """Finish what is in flight, then stop everything; False when something had to be cut off."""
        self._wanted = None
        self.transport.abandon_released()
        drained = await self.drain(timeout_s)
        if drained and self.settings.on_kafka and not (self.failure is not None and self.failure.done()):
            await self.keep_positions({})
            drained = await self.drain(DRAIN_S_MAX)
        for lanes in self._lanes:
            await lanes.close()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        for partition in sorted(self.held):
            await self._close(partition)
        self.transport.wake()
        await self.app.stop()
        await self.transport.stop()
        return drained


def _faust_app(settings: Settings, data: Path) -> faust.App:
    """Faust with everything off that we replace."""
    register_driver()
    return faust.App(
        settings.app,
        broker=settings.broker,
        store="memory://",
        datadir=str(data).replace("{", "{{").replace("}", "}}"),  # Faust formats this path
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
