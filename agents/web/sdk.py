"""The SDK's door: pages send what their visitors do, with a public app id; docs/SDK.md is its protocol."""

import asyncio
import math
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from yarl import URL

from agents.engine.transport import Log
from agents.web.buckets import Buckets
from config import metrics
from config.clock import Clock
from config.settings import Settings, split_list
from streams.errors import BadInput, HeadraceError
from streams.sdk_batch import SdkBatch, read_envelope, read_items

FILE: Final = Path(__file__).parents[2] / "sdk" / "dist" / "headrace.js"
BODY_BYTES_MAX: Final = 256 * 1024
BODY_S_MAX: Final = 10.0
REQUESTS_MAX: Final = 32
"""At once; pages take none of the places of callers with a key."""

DEVICE_RATE_PER_S: Final = 2.0
DEVICE_BURST: Final = 30.0
DEVICES_MAX: Final = 20_000
APP_BURST_S: Final = 2.0
"""An app may take so many seconds' requests at once."""

PREFLIGHT_S: Final = 600
FILE_S: Final = 600
BUSY_S: Final = 1
DISK_S: Final = 10
_KINDS: Final = ("application/json", "text/plain")  # beacons send text, since JSON would need a preflight


class SdkDoor:
    """Serves `/sdk/headrace.js`, and takes what it sends."""

    def __init__(self, settings: Settings, log: Log, clock: Clock, is_full: Callable[[], bool] = lambda: False) -> None:
        """While `is_full` says so, nothing is taken."""
        self._log = log
        self._clock = clock
        self._is_full = is_full
        self._apps = frozenset(split_list(settings.app_ids))
        self._origins = frozenset(split_list(settings.cors_origins))
        self._protected = frozenset(split_list(settings.sdk_protected))
        self._room = asyncio.Semaphore(REQUESTS_MAX)
        self._of_app = Buckets(settings.sdk_requests_per_s, settings.sdk_requests_per_s * APP_BURST_S, len(self._apps))
        self._of_device = Buckets(DEVICE_RATE_PER_S, DEVICE_BURST, DEVICES_MAX)
        self._file = FILE.read_bytes()
        self._etag = f'"{blake2b(self._file, digest_size=12).hexdigest()}"'

    def add_routes(self, app: web.Application) -> None:
        """The paths of the SDK."""
        app.router.add_get("/sdk/headrace.js", self._script)
        app.router.add_post("/sdk/v1/track", self._track)
        app.router.add_options("/sdk/v1/track", self._preflight)

    async def _script(self, request: web.Request) -> web.Response:
        """The built file; public, so any page may load it and check it by its hash."""
        headers = {
            "ETag": self._etag,
            "Cache-Control": f"public, max-age={FILE_S}",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        if request.headers.get("If-None-Match") == self._etag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=self._file, content_type="text/javascript", charset="utf-8", headers=headers)

    async def _preflight(self, request: web.Request) -> web.Response:
        origin = self._allowed_origin(request)
        if origin is None:
            return self._refused_origin()
        headers = {
            **_cors(origin),
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "content-type",
            "Access-Control-Max-Age": str(PREFLIGHT_S),
        }
        return web.Response(status=204, headers=headers)

    async def _track(self, request: web.Request) -> web.Response:
        origin = self._allowed_origin(request)
        if origin is None:
            return self._refused_origin()
        answer = await self._answer(request)
        answer.headers.update(_cors(origin))
        return answer

    def _allowed_origin(self, request: web.Request) -> str | None:
        """The origin of the page if it may send; "" where none is told, as by callers that are no page."""
        origin = request.headers.get("Origin", "")
        if not origin or origin in self._origins or "*" in self._origins:
            return origin
        try:
            own = URL(origin).raw_authority == request.host  # a proxy may speak TLS for us: the scheme is not compared
        except ValueError:
            own = False
        return origin if own else None

    def _refused_origin(self) -> web.Response:
        metrics.LIMIT_HITS.labels("sdk_origin").inc()
        return _said(403, "this origin may not send; add it to HEADRACE_CORS_ORIGINS")

    async def _answer(self, request: web.Request) -> web.Response:
        if request.content_type not in _KINDS:
            return _said(415, "Content-Type must be application/json, or text/plain for a beacon")
        if self._is_full():
            metrics.LIMIT_HITS.labels("door_disk_low").inc()
            return _said(503, "nothing is taken for now; send it again later", retry_s=DISK_S)
        if self._room.locked():
            metrics.LIMIT_HITS.labels("sdk_requests").inc()
            return _said(429, "Rate Limited", retry_s=BUSY_S)
        async with self._room:
            try:
                async with asyncio.timeout(BODY_S_MAX):
                    body = await _read(request)
            except TimeoutError:
                metrics.LIMIT_HITS.labels("sdk_body_seconds").inc()
                return _said(408, f"the body took more than {BODY_S_MAX:.0f} s")
            if body is None:
                metrics.LIMIT_HITS.labels("sdk_body_bytes").inc()
                return _said(413, f"more than {BODY_BYTES_MAX} bytes; send fewer items at once")
            return await self._take(body)

    async def _take(self, body: bytes) -> web.Response:
        now_s = asyncio.get_running_loop().time()
        try:
            envelope = read_envelope(body)
            if envelope.app_id not in self._apps:
                return _said(401, "Invalid app id; HEADRACE_APP_IDS names those that are taken")
            wait_s = self._of_app.take(envelope.app_id, now_s) or self._of_device.take(envelope.device_id, now_s)
            if wait_s:
                metrics.LIMIT_HITS.labels("sdk_rate").inc()
                return _said(429, "Rate Limited", retry_s=max(1, math.ceil(wait_s)))
            found = read_items(envelope, self._clock.now_ms(), self._log.partitions, self._protected)
        except BadInput as error:
            return _said(400, str(error))
        return await self._keep(found)

    async def _keep(self, found: SdkBatch) -> web.Response:
        """Answer when the log has it, so that a page may repeat whatever was not answered."""
        try:
            if found.outputs:
                await self._log.append(found.outputs)
        except HeadraceError:
            return _said(503, "the log does not take it now; send it again later", retry_s=BUSY_S)
        metrics.DOOR_OBJECTS.labels("sdk").inc(len(found.outputs))
        faults = [msgspec.structs.asdict(fault) for fault in found.faults]
        return _said(200, "success", accepted=len(found.outputs), errors=faults)


async def _read(request: web.Request) -> bytes | None:
    """The body, None if it is too large; no more of it is kept in memory than that."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        return None
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


def _cors(origin: str) -> dict[str, str]:
    """What lets a page of that origin read the answer. No credentials: the SDK sends no cookies."""
    if not origin:
        return {"Vary": "Origin"}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}


def _said(status: int, message: str, *, retry_s: int = 0, **fields: Any) -> web.Response:  # JSON
    headers = {"Cache-Control": "no-store", **({"Retry-After": str(retry_s)} if retry_s else {})}
    return web.json_response({"message": message, **fields}, status=status, headers=headers)
