"""The door: Braze-compatible ingestion over HTTP, into the events topic."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import msgspec
from aiohttp import web

from agents.engine.transport import Log
from agents.web.gate import refusal
from agents.web.keys import Keys
from config import metrics
from config.clock import Clock
from streams.email_request import NOBODY, read_bounce_remove, read_email_status, read_spam_remove
from streams.errors import BadInput, HeadraceError
from streams.events import JSONValue
from streams.identify_request import NOTHING_TO_IDENTIFY, read_identify_request
from streams.track_request import NOTHING_VALID, TrackRequest, read_track_request

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
BODY_S_MAX: Final = 30.0
"""A caller that sends more slowly loses its place among the few that are served at once."""

REQUESTS_MAX: Final = 32
RETRY_AFTER_S: Final = "1"
DISK_RETRY_AFTER_S: Final = "10"


class Endpoint(NamedTuple):
    """A path that takes something in: the permission it asks for, how its body is read, what to say if it has nothing.

    `read` gets the body, the time, and the number of partitions.
    """

    path: str
    scope: str
    read: Callable[[bytes, int, int], TrackRequest]
    nothing: str


ENDPOINTS: Final = (
    Endpoint("/users/track", "users.track", read_track_request, NOTHING_VALID),
    Endpoint("/users/identify", "users.identify", read_identify_request, NOTHING_TO_IDENTIFY),
    Endpoint("/email/bounce/remove", "email.bounce.remove", read_bounce_remove, NOBODY),
    Endpoint("/email/spam/remove", "email.spam.remove", read_spam_remove, NOBODY),
    Endpoint("/email/status", "email.status", read_email_status, NOBODY),
)


class Door:
    """Answers 201 when what it took is kept by the log, so that a caller may repeat whatever was not answered."""

    def __init__(self, log: Log, clock: Clock, keys: Keys, is_full: Callable[[], bool] = lambda: False) -> None:
        """While `is_full` says so, nothing is taken."""
        self._log = log
        self._clock = clock
        self._keys = keys
        self._is_full = is_full
        self._room = asyncio.Semaphore(REQUESTS_MAX)

    def add_routes(self, app: web.Application) -> None:
        """The paths of the door."""
        for endpoint in ENDPOINTS:
            app.router.add_post(endpoint.path, self._serve(endpoint))

    def _serve(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            refusal = self._refusal(request, endpoint.scope)
            if refusal is not None:
                return refusal
            async with self._room:
                try:
                    async with asyncio.timeout(BODY_S_MAX):
                        body = await request.read()
                except TimeoutError:
                    metrics.LIMIT_HITS.labels("door_body_seconds").inc()
                    return _said(408, f"the body took more than {BODY_S_MAX:.0f} s; send it faster, or in parts")
                except web.HTTPRequestEntityTooLarge:
                    return _said(413, f"more than {BODY_BYTES_MAX} bytes; send fewer objects at once")
                return await self._take(endpoint, body)

        return serve

    def _refusal(self, request: web.Request, scope: str) -> web.Response | None:
        refused = refusal(request, self._keys, scope)
        if refused is not None:
            return refused
        if self._is_full():
            metrics.LIMIT_HITS.labels("door_disk_low").inc()
            headers = {"Retry-After": DISK_RETRY_AFTER_S}
            return _said(503, "the disk is nearly full; nothing was taken, send it again later", headers=headers)
        if request.content_type != "application/json":
            return _said(415, "Content-Type must be application/json")
        if self._room.locked():
            metrics.LIMIT_HITS.labels("door_requests").inc()
            return _said(429, "Rate Limited", headers={"Retry-After": RETRY_AFTER_S})
        return None

    async def _take(self, endpoint: Endpoint, body: bytes) -> web.Response:
        try:
            found = endpoint.read(body, self._clock.now_ms(), self._log.partitions)
        except BadInput as error:
            return _said(400, error.detail)
        faults = [msgspec.structs.asdict(fault) for fault in found.faults]
        if not found.outputs:
            return _said(400, endpoint.nothing, {"errors": faults} if faults else {})
        try:
            await self._log.append(found.outputs)
        except HeadraceError as error:
            return _said(503, str(error))
        for array, count in found.processed.items():
            metrics.DOOR_OBJECTS.labels(array).inc(count)
        counts = {f"{array}_processed": count for array, count in found.processed.items()}
        return _said(201, "success", counts | ({"errors": faults} if faults else {}))


def _said(status: int, message: str, fields: JSONValue = None, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": message, **(fields or {})}, status=status, headers=headers)
