"""The door of messages' links: `/t/o`, `/t/c`, `/t/u` and `/t/p`, open to everyone who holds a token of ours."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web

from agents.engine.transport import Log
from agents.web.forms import FORM_BYTES_MAX, read_form
from agents.web.hits import Hits
from agents.web.pages import IMAGE, page
from config import metrics
from config.clock import Clock
from streams import topics
from streams.codec import partition_of, to_json
from streams.engagement import EngagementKind, SigningKeys, Token, TokenKind, verify
from streams.engagement_item import TYPE, USER_AGENT_CHARS_MAX
from streams.errors import BadInput, HeadraceError
from streams.machines import is_machine
from streams.records import Output
from streams.times import format_time

APPENDS_MAX: Final = 256
"""Appends under way; beyond them opens and clicks are answered and not counted, other things refused for now."""

APPEND_S_MAX: Final = 5.0
FORM_S_MAX: Final = 10.0
ID_BYTES: Final = 12
RETRY_AFTER_S: Final = "5"
ONE_CLICK: Final = ("List-Unsubscribe", "One-Click")
CHOICES: Final[dict[str, EngagementKind]] = {
    "subscribed": "subscribed",
    "opted_in": "opted_in",
    "unsubscribed": "unsubscribe",
}
# Nothing about a link may be kept on the way, passed on to where it leads, or found by a search engine.
PRIVATE: Final = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex, nofollow"}

Answer = Callable[[web.Request, Token], Awaitable[web.Response]]


class TrackingDoor:
    """Answers without memory: what is said of a message stands in its token, and what happens goes into the log.

    A reader never waits for us, nor sees a failure of ours: an image is shown and a click led on even where it could
    not be counted, which the metric `headrace_tracking_lost_total` tells. A choice about subscriptions is another
    matter: it is kept by the log before it is confirmed, else the answer is 503 and mail programs try again.
    """

    def __init__(self, log: Log, clock: Clock, keys: SigningKeys, is_full: Callable[[], bool] = lambda: False) -> None:
        """Without `keys` no token is ours."""
        self._log = log
        self._clock = clock
        self._keys = keys
        self._is_full = is_full
        self._hits = Hits(clock)
        self._room = asyncio.Semaphore(APPENDS_MAX)

    def add_routes(self, app: web.Application) -> None:
        """The paths; HEAD is answered like GET, and counts nothing."""
        app.router.add_get("/t/o/{token}", self._for("open", self._open))
        app.router.add_get("/t/c/{token}", self._for("click", self._click))
        app.router.add_get("/t/u/{token}", self._for("unsubscribe", self._ask))
        app.router.add_post("/t/u/{token}", self._for("unsubscribe", self._unsubscribe))
        app.router.add_get("/t/p/{token}", self._for("preferences", self._choose))
        app.router.add_post("/t/p/{token}", self._for("preferences", self._prefer))

    def _for(self, kind: TokenKind, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                token = verify(self._keys, request.match_info["token"], (kind,))
            except BadInput:
                metrics.TRACKING_REFUSED.inc()
                return page("unknown", status=404)
            return await answer(request, token)

        return handle

    # ---- what readers do

    async def _open(self, request: web.Request, token: Token) -> web.Response:
        await self._count(request, token, "open")
        return web.Response(body=IMAGE, content_type="image/gif", headers=PRIVATE)

    async def _click(self, request: web.Request, token: Token) -> web.Response:
        await self._count(request, token, "click")
        return web.Response(status=302, headers={**PRIVATE, hdrs.LOCATION: token.url})

    async def _count(self, request: web.Request, token: Token, kind: EngagementKind) -> None:
        if request.method == hdrs.METH_HEAD:
            return
        if not self._hits.allow(token.claims.dispatch_id):
            metrics.LIMIT_HITS.labels("tracking_hits").inc()
        elif not await self._keep(request, token, kind):
            metrics.TRACKING_LOST.labels(kind).inc()

    # ---- what they choose

    async def _ask(self, request: web.Request, token: Token) -> web.Response:
        """Only a page: scanners of links follow every one of them, and must unsubscribe nobody."""
        return page("unsubscribe")

    async def _unsubscribe(self, request: web.Request, token: Token) -> web.Response:
        """A mail program's one click (RFC 8058), or the button of our page."""
        form = await self._form(request, token)
        if isinstance(form, web.Response):
            return form
        is_one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        if not is_one_click and form.get("confirm") != "yes":
            return page("unsubscribe", status=400)
        source = "List-Unsubscribe" if is_one_click else "Subscription Page"
        return await self._change(request, token, "unsubscribe", source)

    async def _choose(self, request: web.Request, token: Token) -> web.Response:
        return page("preferences")

    async def _prefer(self, request: web.Request, token: Token) -> web.Response:
        form = await self._form(request, token)
        if isinstance(form, web.Response):
            return form
        kind = CHOICES.get(form.get("state", ""))
        if kind is None:
            return page("preferences", status=400)
        return await self._change(request, token, kind, "Preference Center")

    async def _form(self, request: web.Request, token: Token) -> dict[str, str] | web.Response:
        """The fields that were sent, or why not; a message has so many forms a minute, whatever is in them."""
        if not self._hits.allow(token.claims.dispatch_id, choice=True):
            metrics.LIMIT_HITS.labels("tracking_hits").inc()
            return page("later", status=429, headers={hdrs.RETRY_AFTER: RETRY_AFTER_S})
        try:
            async with asyncio.timeout(FORM_S_MAX):
                body = await request.content.read(FORM_BYTES_MAX + 1)
                while len(body) <= FORM_BYTES_MAX and (more := await request.content.read(FORM_BYTES_MAX)):
                    body += more
        except TimeoutError:
            metrics.LIMIT_HITS.labels("tracking_form_seconds").inc()
            return page("later", status=408)
        if len(body) > FORM_BYTES_MAX:
            metrics.LIMIT_HITS.labels("tracking_form_bytes").inc()
            return page("later", status=413)
        return read_form(request.headers.get(hdrs.CONTENT_TYPE, ""), body)

    async def _change(self, request: web.Request, token: Token, kind: EngagementKind, source: str) -> web.Response:
        if not await self._keep(request, token, kind, source):
            return page("later", status=503, headers={hdrs.RETRY_AFTER: RETRY_AFTER_S})
        return page("unsubscribed" if kind == "unsubscribe" else "saved")

    # ---- keeping

    async def _keep(self, request: web.Request, token: Token, kind: EngagementKind, source: str = "") -> bool:
        """Put it into the events topic, keyed by its user; False if that was not possible, or not in time."""
        if self._room.locked() or self._is_full():
            metrics.LIMIT_HITS.labels("tracking_appends" if self._room.locked() else "door_disk_low").inc()
            return False
        now_ms, claims = self._clock.now_ms(), token.claims
        item: dict[str, object] = {
            "type": TYPE,
            "kind": kind,
            "token": request.match_info["token"],
            "time": format_time(now_ms),
            "id": secrets.token_urlsafe(ID_BYTES),
            "user_agent": _printable(request.headers.get(hdrs.USER_AGENT, ""))[:USER_AGENT_CHARS_MAX],
        }
        if kind in ("open", "click") and is_machine(kind, request.headers, now_ms - claims.decided_ms):
            item["machine"] = True
        if token.url:
            item["url"] = token.url
        if source:
            item["source"] = source
        key = claims.user.encode()
        output = Output(topics.EVENTS.name, partition_of(key, self._log.partitions), key, to_json(item))
        async with self._room:
            return await self._append(output)

    async def _append(self, output: Output) -> bool:
        try:
            async with asyncio.timeout(APPEND_S_MAX):
                await self._log.append([output])
        except (HeadraceError, TimeoutError) as error:
            structlog.get_logger("headrace").warning("tracking_not_kept", reason=type(error).__name__)
            return False
        return True


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
