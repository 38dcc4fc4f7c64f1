"""The campaigns page: `/campaigns` for all, `/campaigns/<name>` for one; its numbers, and CSV, need the key."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from agents.campaigns import Campaigns
from agents.web.campaigns_api import CampaignsApi
from agents.web.doors import Routes
from agents.web.gate import refusal
from agents.web.keys import Keys
from agents.web.status import HEADERS, PAGE
from config.clock import Clock
from streams.campaign_report import to_csv
from streams.errors import BadSetting

SCOPE: Final = "campaigns.data_series"
ASSETS: Final = {"campaigns.css": "text/css", "campaigns.js": "text/javascript"}
LENGTH_CHARS_MAX: Final = 5

Answer = Callable[[Mapping[str, str]], Awaitable[web.Response]]


def campaign_routes(campaigns: Campaigns, keys: Keys | None, clock: Clock) -> list[Routes]:
    """The API and, behind it, the page; nothing where there is no door."""
    return [] if keys is None else [CampaignsApi(campaigns, keys, clock), CampaignsPage(campaigns, keys)]


class CampaignsPage:
    """Serves the page to anyone, and what became of campaigns to whoever has the key of the data series.

    `list`, `details` and `data_series` are paths of the API, so campaigns of these names have no page of their own.
    """

    def __init__(self, campaigns: Campaigns, keys: Keys) -> None:
        self._campaigns = campaigns
        self._keys = keys
        self._files = {name: (PAGE / name).read_text("utf-8") for name in (*ASSETS, "campaigns.html")}

    def add_routes(self, app: web.Application) -> None:
        """The page behind the paths of the API, its data and its assets."""
        app.router.add_get("/campaigns", self._file("campaigns.html", "text/html"))
        app.router.add_get("/campaigns.json", self._serve(self._json))
        app.router.add_get("/campaigns.csv", self._serve(self._csv))
        for name, kind in ASSETS.items():
            app.router.add_get(f"/status/{name}", self._file(name, kind))
        app.router.add_get("/campaigns/{name}", self._file("campaigns.html", "text/html"))

    def _file(self, name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            return web.Response(text=self._files[name], content_type=kind, headers=HEADERS)

        return serve

    def _serve(self, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            refused = refusal(request, self._keys, SCOPE)
            if refused is not None:
                return refused
            try:
                return await answer(request.query)
            except BadSetting as error:
                return web.json_response({"message": str(error)}, status=400, headers=HEADERS)

        return serve

    async def _json(self, query: Mapping[str, str]) -> web.Response:
        answer = await self._report(query) if "campaign" in query else await self._campaigns.overview()
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=HEADERS)

    async def _csv(self, query: Mapping[str, str]) -> web.Response:
        answer = await self._report(query)
        name = "".join(char if char.isalnum() or char in "._-" else "_" for char in answer["campaign"])
        disposition = {"Content-Disposition": f'attachment; filename="{name}-{answer["unit"]}.csv"'}
        text = to_csv(answer)
        return web.Response(text=text, content_type="text/csv", charset="utf-8", headers={**HEADERS, **disposition})

    async def _report(self, query: Mapping[str, str]) -> dict[str, Any]:
        length = query.get("length", "0")
        if not (length.isascii() and length.isdecimal() and len(length) <= LENGTH_CHARS_MAX):
            raise BadSetting(f"length={length[:20]!r}: give a number")
        return await self._campaigns.report(query.get("campaign", ""), query.get("unit", "day"), int(length))
