"""The status page: `/status` for people, `/status.json` for machines, and replaying dead letters with the key."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from agents.status.board import Board
from agents.web.campaigns import sending_of
from agents.web.keys import Keys
from agents.web.replay import Asked, replay_all
from streams.errors import HeadraceError

PAGE: Final = Path(__file__).parent / "page"
REPLAY_MAX: Final = 100_000
ASSETS: Final = {
    "status.css": "text/css",
    "uPlot.min.css": "text/css",
    "status.js": "text/javascript",
    "uPlot.iife.min.js": "text/javascript",
}
# Nothing from elsewhere, and nobody may frame a page that takes a key.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Replay(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters to replay."""

    reason: str


class StatusPage:
    """Reads a board; nothing here names a user. Without `keys` nothing can be done, only looked at."""

    def __init__(self, board: Board, keys: Keys | None, asked: Asked) -> None:
        """`asked` answers the commands that a replay is made of."""
        self._board = board
        self._keys = keys
        self._asked = asked
        self._files = {name: (PAGE / name).read_text("utf-8") for name in (*ASSETS, "status.html")}

    def add_routes(self, app: web.Application) -> None:
        """The page, its data, its assets, and its one action."""
        app.router.add_get("/status", self._serve("status.html", "text/html"))
        for name, kind in ASSETS.items():
            app.router.add_get(f"/status/{name}", self._serve(name, kind))
        app.router.add_get("/status.json", self._report)
        app.router.add_post("/status/replay", self._replay)

    def _serve(self, name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            return web.Response(text=self._files[name], content_type=kind, headers=HEADERS)

        return serve

    async def _report(self, request: web.Request) -> web.Response:
        after = request.query.get("after_ms", "0")
        if not (after.isdecimal() and after.isascii()):
            return _said(400, f"after_ms={after[:20]!r}: give milliseconds since 1970")
        sending = await sending_of(self._asked)
        report = {**self._board.report(int(after)), "sending": sending, "can_replay": self._keys is not None}
        return web.Response(body=msgspec.json.encode(report), content_type="application/json", headers=HEADERS)

    async def _replay(self, request: web.Request) -> web.Response:
        if self._keys is None or not self._keys.allow(request.headers.get("Authorization", "")):
            return _said(401, "Invalid API key")
        try:
            wanted = msgspec.json.decode(await request.read(), type=_Replay)
            counts: dict[str, Any] = await replay_all(self._asked, reason=wanted.reason, limit=REPLAY_MAX, again=False)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _said(400, str(error))
        except HeadraceError as error:
            return _said(503, str(error))
        return web.json_response(counts, headers=HEADERS)


def _said(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status, headers=HEADERS)
