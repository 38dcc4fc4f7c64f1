"""The HTTP server of a process: health, metrics, and the door where there is one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from agents.web.door import BODY_BYTES_MAX
from agents.web.doors import Routes
from agents.web.status import StatusPage
from streams.errors import BadSetting

STOP_S_MAX: Final = 2.0


class HttpServer:
    """Serves at one address; `ready` is set by whoever starts it."""

    def __init__(
        self,
        has_failed: Callable[[], bool],
        metrics: Callable[[], Awaitable[bytes]],
        door: Routes | None,
        status: StatusPage | None = None,
        is_full: Callable[[], bool] = lambda: False,
        more: Sequence[Routes] = (),
    ) -> None:
        """`metrics` gives the text of `/metrics`, up to date; while `is_full`, not ready; `more` is served as well."""
        self._more = more
        self._has_failed = has_failed
        self._text_of_metrics = metrics
        self._is_full = is_full
        self._door = door
        self._status = status
        self._runner: web.AppRunner | None = None
        self.ready = False

    async def start(self, address: str) -> None:
        """Serve at host:port; nowhere if that is empty. Raises BadSetting when the port is taken."""
        if not address:
            return
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/health/startup", self._started)
        app.router.add_get("/metrics", self._metrics)
        if self._status is not None:
            self._status.add_routes(app)
        if self._door is not None:
            self._door.add_routes(app)
        for each in self._more:
            each.add_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S_MAX)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host, int(port)).start()
        except OSError as error:
            raise BadSetting(f"HEADRACE_HTTP={address}: {error.strerror}; choose another port") from None

    async def stop(self) -> None:
        """Answer what is under way, and stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _live(self, request: web.Request) -> web.Response:
        failed = self._has_failed()
        return web.json_response({"status": "failed" if failed else "ok"}, status=503 if failed else 200)

    async def _ready(self, request: web.Request) -> web.Response:
        if self.ready and self._is_full():
            return web.json_response({"status": "disk_low"}, status=503)
        return await self._started(request)

    async def _started(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok" if self.ready else "starting"}, status=200 if self.ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=await self._text_of_metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})
