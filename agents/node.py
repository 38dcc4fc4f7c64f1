"""One process: everything it has one of, started in order and stopped in order."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from platform import python_version
from typing import TYPE_CHECKING, Any, Final

import faust
from prometheus_client import generate_latest

from agents.campaigns import Campaigns
from agents.canary import Canary
from agents.definitions import Workspaces
from agents.delivery.agent import Delivery
from agents.delivery.providers import canaries_of, providers_of
from agents.disk import Disk
from agents.engine.agent import Agent
from agents.engine.engine import Engine
from agents.engine.interpreter import set_up_interpreter
from agents.engine.keeping import run_keeping
from agents.engine.pace import Pace
from agents.engine.transport import Log
from agents.export import Export
from agents.fanout import run_fanouts
from agents.folder import DataFolder
from agents.intake import Intake
from agents.report_source import ReportSource, StoredReports
from agents.reports import Reports
from agents.retention import follow_brokers, run_retention
from agents.scan import run_scans
from agents.signing import signing_keys, tracking_of
from agents.status.about import VERSION, about
from agents.status.board import Board
from agents.status.gauges import Gauges
from agents.status.watchdog import Watchdog
from agents.ticker import run_ticker
from agents.users import Users
from agents.web.campaigns_page import campaign_routes
from agents.web.commands import COMMANDS
from agents.web.control import ControlServer
from agents.web.dead_letters import DeadLetters
from agents.web.doors import doors
from agents.web.key_ring import KeyRing
from agents.web.keys import Keys
from agents.web.preview import Previews
from agents.web.preview_page import PreviewPage
from agents.web.queries import Queries
from agents.web.server import HttpServer
from agents.web.status import StatusPage
from channels.sinks.avro_files import AvroFiles
from config import metrics
from config.clock import Clock
from config.settings import Settings
from streams.errors import BadSetting
from streams.events import JSONValue
from streams.policy.retention import read_retention
from tables.format import check_format
from tables.memory import store_share
from tables.moved import refuse_moved
from tables.store import Store

if TYPE_CHECKING:
    from agents.engine.kafka.standby import Standby

META_PARTITIONS: Final = b"partitions"
QUIET_LOOK_S: Final = 0.02


class Node:
    """A worker, on the embedded log or on Kafka. `wire` registers its agents; they run from `start` to `stop`.

    Without `wire` it is the opened folder, for commands where nothing runs.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Open the folder and wire the parts. Raises BadSetting or OutsideFailing."""
        self.settings = settings
        self._clock = clock
        self.folder = DataFolder(settings.data)
        self.store = Store(settings.data / "db", store_share(settings.memory_bytes))
        check_format(self.store)
        _check_partitions(self.store, settings)
        self.engine = Engine(settings, clock, self.store, settings.data / "faust")
        self.workspaces = Workspaces(self.engine.transport)
        self.queries = Queries(self.store, self.engine, self.workspaces)
        self.previews = Previews(settings, self.workspaces, self.queries, clock)
        self.dead_letters = DeadLetters(self.store, self.engine)
        self.campaigns = Campaigns(self.workspaces, self._report_source(), clock.now_ms)
        self.key_ring = KeyRing(self.engine.transport, clock)
        self.disk = Disk(settings)
        self._tasks: list[asyncio.Task[None]] = []

    def _report_source(self) -> ReportSource:
        """This process's counters where it has all of them, else what every worker tells."""
        if not self.settings.on_kafka:
            return StoredReports(self.store, self.settings.partitions, self.engine.pace)
        from agents.engine.kafka.reports_topic import TopicReports  # noqa: PLC0415  # only where it is used

        return TopicReports(self.settings)

    @property
    def log(self) -> Log:
        """The log, for whoever appends to it from this process."""
        return self.engine.transport

    @property
    def failure(self) -> asyncio.Future[BaseException] | None:
        """Set when the engine had to stop; None before `start`."""
        return self.engine.failure

    async def connect(self) -> None:
        """Connect the transport and read the workspaces: enough for commands. Raises BadSetting if it was moved."""
        refuse_moved(self.store)
        await self.engine.transport.start()
        await self.workspaces.load()

    def wire(self, *, door: bool = False) -> None:
        """Register the agents, in the order in which data flows; `door`: this process takes events over HTTP too."""
        settings, engine = self.settings, self.engine
        read_retention(settings.retention)  # refused here rather than at the first look
        signed_by = signing_keys(settings)
        self.users = Users(engine, self.workspaces)
        providers = providers_of(settings, signed_by)
        self.delivery = Delivery(engine, self.workspaces, providers, tracking_of(settings, signed_by))
        self.canary = Canary(engine, canaries_of(providers), settings.canary_s)
        folder = settings.exports_folder
        self.export = Export(engine, AvroFiles(folder, settings.app) if folder else None)
        agents: list[Agent] = [Intake(engine, signed_by), self.users, self.delivery]
        agents += [self.export] if folder else []
        self.reports = Reports(engine)
        agents.append(self.reports)
        for agent in agents:
            engine.register(agent)
        self.workspaces.on_change = self.users.switch
        has_door = door and bool(settings.http)
        keys = Keys(settings.data, settings.api_key, self.key_ring) if has_door else None
        self.gauges = Gauges(self)
        self.watchdog = Watchdog()
        self.board = Board(self.gauges, self._clock, about(settings))
        taker = doors(settings, self.log, self._clock, keys, self.disk.is_low) if keys else None
        page = StatusPage(self.board, keys, self)
        more = campaign_routes(self.campaigns, keys, self._clock)
        more += [PreviewPage(self, keys)] if keys else []
        self.server = HttpServer(self._has_failed, self._metrics, taker, page, self.disk.is_low, more)
        self.control = ControlServer(self._commands())

    async def start(self) -> None:
        """Load the workspace, then let records flow; returns when the partitions are open."""
        await self.connect()
        await self.key_ring.load()
        if self.settings.workspace is not None:
            await self.workspaces.adopt(self.settings.workspace, insist=not self.settings.on_kafka)
        self.watchdog.start()
        standby = self._standby()
        await self.engine.start()
        await self.engine.ready()
        await self.control.start(self.settings.data)
        await self.server.start(self.settings.http)
        self._watch(partial(run_ticker, self.engine, self.users))
        self._watch(partial(run_scans, self.engine, self.users))
        self._watch(partial(run_fanouts, self.engine, self.users))
        self._watch(self.export.run)
        self._watch(self.reports.run)
        self._watch(partial(run_retention, self.engine))
        self._watch(self.disk.run)
        self._watch(self.engine.watch_faust)
        self._watch(self.gauges.run)
        self._watch(self.board.run)
        self._watch(self.canary.run)
        if self.settings.on_kafka:
            from agents.engine.kafka.membership import publish_positions  # noqa: PLC0415  # only where it is used

            self._watch(partial(publish_positions, self.engine))
            self._watch(partial(run_keeping, self.engine))
            if standby is not None:
                self._watch(standby.run)
            self._watch(self.workspaces.follow)
            self._watch(partial(follow_brokers, self.settings, self.gauges.lag.keep))
        versions = (VERSION, python_version(), faust.__version__)
        metrics.BUILD_INFO.labels(*versions).set(1)
        await self.gauges.sample()
        set_up_interpreter()
        self.server.ready = True

    def _standby(self) -> "Standby | None":
        """Copies of what this process does not hold, which the engine says from the first partition on."""
        if not (self.settings.on_kafka and self.settings.standby):
            return None
        from agents.engine.kafka.standby import Standby  # noqa: PLC0415  # only where it is used

        changelog_id = self.engine.transport.topic_id("changelog")
        standby = self.engine.standby = Standby(self.settings, self.store, changelog_id, self._clock)
        return standby

    def _has_failed(self) -> bool:
        return self.gauges.stuck or (self.failure is not None and self.failure.done())

    def refresh(self) -> None:
        """Bring gauges up to date."""
        if self.server.ready:
            self.gauges.show()

    async def _metrics(self) -> bytes:
        self.refresh()
        return await asyncio.to_thread(generate_latest, metrics.REGISTRY)

    def _watch(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work beside the agents; its error stops the process like theirs."""

        async def watched() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.engine.fail(error)
                raise

        self._tasks.append(asyncio.create_task(watched()))

    async def progress(self) -> dict[str, Any]:
        """How far the open partitions are, by their topics' ends as they are now: what a quiet moment is told by."""
        watermarks = self.engine.slices.watermarks
        ends = await self.engine.transport.ends(watermarks)
        return {
            "idle": self.engine.idle and self.delivery.idle and not self.users.is_building,
            "behind": sum(max(0, ends[place] - offset) for place, offset in watermarks.items()),
            "partitions": sorted(self.engine.held),
            "watermarks": {f"{topic}/{partition}": offset for (topic, partition), offset in watermarks.items()},
        }

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer, as the control socket would give it."""
        if command not in COMMANDS:
            raise BadSetting(f"{command!r} needs a running process, and none uses {self.settings.data}; start `run`")
        return await COMMANDS[command](self)(args)

    @property
    def pace(self) -> Pace:
        """The pace of this process's loop."""
        return self.engine.pace

    async def disconnect(self) -> None:
        """Undo `connect`, and close."""
        await self.campaigns.stop()
        await self.engine.transport.stop()
        self.close()

    async def behind(self) -> int:
        """Records that the agents have not finished; raises what made the engine stop."""
        if self.engine.failure is not None and self.engine.failure.done():
            raise self.engine.failure.result()
        return sum(self.engine.slices.lag().values())

    async def quiesce(self) -> None:
        """Wait until every record has been processed by every agent; raises what made the engine stop."""
        last: JSONValue = None
        while True:
            await self.behind()
            found = await self.progress()
            if found["idle"] and not found["behind"] and found == last:
                return
            last = found
            await asyncio.sleep(QUIET_LOOK_S)

    async def stop(self, timeout_s: float = 5.0) -> bool:
        """Finish what is in flight and close; False when something had to be cut off."""
        self.server.ready = False
        self.watchdog.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.delivery.stop()
        await self.campaigns.stop()
        drained = await self.engine.stop(timeout_s)
        await self.control.stop(self.settings.data)
        await self.server.stop()
        self.close()
        return drained

    def close(self) -> None:
        """Close store and folder."""
        self.store.close()
        self.folder.close()

    def _commands(self) -> dict[str, Any]:
        """What the control socket answers."""
        return {name: command(self) for name, command in COMMANDS.items()}


def _check_partitions(store: Store, settings: Settings) -> None:
    """Hold the partition count to what the folder was made with."""
    known = store.get("meta", META_PARTITIONS)
    if known is None:
        batch = store.batch()
        batch.put("meta", META_PARTITIONS, str(settings.partitions).encode())
        store.write(batch)
    elif int(known) != settings.partitions:
        raise BadSetting(
            f"HEADRACE_PARTITIONS={settings.partitions}: {settings.data} was made with {int(known)}; use that number"
        )
