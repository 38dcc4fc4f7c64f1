"""A process that is only a door: HTTP in front, the events topic behind; on Kafka."""

import asyncio
from platform import python_version
from typing import Any

import faust
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
from agents.web.campaigns_api import CampaignsApi
from agents.web.door import Door
from agents.web.keys import Keys
from agents.web.server import HttpServer
from agents.web.status import StatusPage
from config import metrics
from config.clock import SystemClock
from config.settings import Settings
from streams.errors import BadSetting
from streams.events import JSONValue


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
        keys = Keys(settings.data, settings.api_key)
        clock = SystemClock()
        self.board = Board(Doorway(self.log, clock), clock, about(settings, "door"))
        page = StatusPage(self.board, None, self)
        taker = Door(self.log, clock, keys)
        self._workspaces = Workspaces(self.log)
        self._campaigns = Campaigns(self._workspaces, TopicReports(settings), clock.now_ms)
        more = [CampaignsApi(self._campaigns, keys, clock)]
        self._server = HttpServer(lambda: False, self._metrics, taker, page, more=more)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect, then serve."""
        self.failure = asyncio.get_running_loop().create_future()
        await self.log.start()
        await self._workspaces.load()
        await self._server.start(self.settings.http)
        self._watching = [asyncio.create_task(self.board.run()), asyncio.create_task(self._workspaces.follow())]
        metrics.BUILD_INFO.labels(VERSION, python_version(), faust.__version__).set(1)
        self._server.ready = True

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """Nothing: a door holds no state."""
        raise BadSetting(f"{command!r} needs a worker; this process is a door")

    async def _metrics(self) -> bytes:
        return await asyncio.to_thread(generate_latest, metrics.REGISTRY)

    async def stop(self) -> None:
        """Answer what is under way, then disconnect."""
        self._server.ready = False
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        await self._server.stop()
        await self._campaigns.stop()
        await self.log.stop()
        self.folder.close()
