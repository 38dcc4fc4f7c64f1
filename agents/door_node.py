"""A process that is only a door: HTTP in front, the events topic behind; on Kafka."""

import asyncio

from prometheus_client import generate_latest

from agents.engine.kafka.log import KafkaLog
from agents.engine.pace import Pace
from agents.folder import DataFolder
from agents.web.door import Door
from agents.web.keys import Keys
from agents.web.server import HttpServer
from config import metrics
from config.clock import SystemClock
from config.settings import Settings
from streams.errors import BadSetting


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
        self._server = HttpServer(
            lambda: False, lambda: generate_latest(metrics.REGISTRY), Door(self.log, SystemClock(), keys)
        )

    async def start(self) -> None:
        """Connect, then serve."""
        self.failure = asyncio.get_running_loop().create_future()
        await self.log.start()
        await self._server.start(self.settings.http)
        self._server.ready = True

    async def stop(self) -> None:
        """Answer what is under way, then disconnect."""
        self._server.ready = False
        await self._server.stop()
        await self.log.stop()
        self.folder.close()
