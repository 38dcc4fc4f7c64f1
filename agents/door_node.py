"""A process that is only a door: HTTP in front, the events topic behind; on Kafka."""

import asyncio
from platform import python_version
from typing import Any, Final

import faust
from aiokafka.errors import KafkaError
from prometheus_client import generate_latest

from agents.campaigns import Campaigns
from agents.definitions import Workspaces
from agents.engine.kafka.log import KafkaLog
from agents.engine.kafka.reports_topic import TopicReports
from agents.engine.pace import Pace
from agents.folder import DataFolder
from agents.status.about import VERSION, about
from agents.status.board import Board
from agents.status.doorway import Doorway
from agents.web.campaigns_page import campaign_routes
from agents.web.control import Command, ControlServer
from agents.web.doors import doors
from agents.web.key_ring import KEY_COMMANDS, KeyRing, ask_ring
from agents.web.keys import Keys
from agents.web.server import HttpServer
from agents.web.status import StatusPage
from config import metrics
from config.clock import SystemClock
from config.settings import Settings
from streams.errors import BadSetting, HeadraceError
from streams.events import JSONValue

PATIENCE: Final = (HeadraceError, OSError, KafkaError)


class DoorNode:
    """Takes events while every worker is down: they wait in the log."""

    def __init__(self, settings: Settings) -> None:
        """Lock the folder, which keeps the key's hash. Raises BadSetting."""
        if not settings.http:
            raise BadSetting("HEADRACE_HTTP is empty: a door needs host:port")
        self.settings = settings
        self.folder = DataFolder(settings.data)
        self.log = KafkaLog(settings, Pace())
        self.failure: asyncio.Future[BaseException] | None = None
        clock = SystemClock()
        self.key_ring = KeyRing(self.log, clock)
        keys = Keys(settings.data, settings.api_key, self.key_ring)
        self.board = Board(Doorway(self.log, clock), clock, about(settings, "door"))
        page = StatusPage(self.board, None, self)
        taker = doors(settings, self.log, clock, keys)
        self._workspaces = Workspaces(self.log)
        self._campaigns = Campaigns(self._workspaces, TopicReports(settings), clock.now_ms)
        more = campaign_routes(self._campaigns, keys, clock)
        self._server = HttpServer(lambda: False, self._metrics, taker, page, more=more)
        self._control = ControlServer({name: self._command(name) for name in KEY_COMMANDS})
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, then serve."""
        self.failure = asyncio.get_running_loop().create_future()
        await self.log.start()
        await self._workspaces.load()
        await self.key_ring.load()
        await self._control.start(self.settings.data)
        await self._server.start(self.settings.http)
        self._watching = [asyncio.create_task(self.board.run()), asyncio.create_task(self._workspaces.follow())]
        self._watching.append(asyncio.create_task(self.key_ring.follow(PATIENCE)))
        metrics.BUILD_INFO.labels(VERSION, python_version(), faust.__version__).set(1)
        self._server.ready = True

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """What concerns keys, which every door knows: else a door holds no state."""
        if command in KEY_COMMANDS:
            return await ask_ring(self.key_ring, command, args)
        raise BadSetting(f"{command!r} needs a worker; this process is a door")

    def _command(self, name: str) -> Command:
        async def run(args: dict[str, Any]) -> JSONValue:
            return await self.ask(name, args)

        return run

    async def _metrics(self) -> bytes:
        return await asyncio.to_thread(generate_latest, metrics.REGISTRY)

    async def stop(self) -> None:
        """Answer what is under way, then disconnect."""
        self._server.ready = False
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._control.stop(self.settings.data)
        await self._server.stop()
        await self._campaigns.stop()
        await self.log.stop()
        self.folder.close()
