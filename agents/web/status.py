"""Health and metrics over HTTP, on loopback unless the operator says otherwise."""

from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from agents.engine.engine import Engine
from config import metrics

NO_PROGRESS_S_MAX: Final = 30


class Status:
    """The small server of a worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runner: web.AppRunner | None = None
        self.ready = False

    async def start(self, address: str) -> None:
        """Serve at host:port. Raises OSError when the port is taken."""
        app = web.Application()
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/health/startup", self._ready)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(self._runner, host, int(port)).start()

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        failed = self._engine.failure is not None and self._engine.failure.done()
        return web.json_response({"status": "failed" if failed else "ok"}, status=503 if failed else 200)

    async def _ready(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok" if self.ready else "starting"}, status=200 if self.ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        for (topic, partition), lag in self._engine.slices.lag().items():
            metrics.LAG_RECORDS.labels(topic, str(partition)).set(lag)
        return web.Response(body=generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})
