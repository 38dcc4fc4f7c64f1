"""Campaigns over HTTP, as Braze answers: `/campaigns/list`, `/campaigns/details`, `/campaigns/data_series`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from agents.campaigns import Campaigns
from agents.web.gate import refusal
from agents.web.keys import Keys
from config.clock import Clock
from streams.campaign_api import LENGTH_MAX, data_series, details, end_of_day_s, listed
from streams.errors import BadSetting
from streams.times import parse_time

PAGE_MAX: Final = 1_000_000
_TRUE: Final = {"true": True, "false": False}

Answer = Callable[[Mapping[str, str]], Awaitable[dict[str, Any]]]


class CampaignsApi:
    """Three questions, each with its permission; what is wrong in one is said in the words of the parameter."""

    def __init__(self, campaigns: Campaigns, keys: Keys, clock: Clock) -> None:
        self._campaigns = campaigns
        self._keys = keys
        self._clock = clock

    def add_routes(self, app: web.Application) -> None:
        """The paths."""
        app.router.add_get("/campaigns/list", self._serve("campaigns.list", self._list))
        app.router.add_get("/campaigns/details", self._serve("campaigns.details", self._details))
        app.router.add_get("/campaigns/data_series", self._serve("campaigns.data_series", self._data_series))

    def _serve(self, scope: str, answer: Answer) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            refused = refusal(request, self._keys, scope)
            if refused is not None:
                return refused
            try:
                body = await answer(request.query)
            except BadSetting as error:
                return web.json_response({"message": str(error)}, status=400)
            return web.Response(
                body=msgspec.json.encode({**body, "message": "success"}), content_type="application/json"
            )

        return serve

    async def _list(self, query: Mapping[str, str]) -> dict[str, Any]:
        page = _number(query, "page", 0, PAGE_MAX, 0)
        direction = query.get("sort_direction", "asc")
        if direction not in ("asc", "desc"):
            raise BadSetting(f"sort_direction: {direction[:20]!r} is neither asc nor desc")
        archived = _TRUE.get(query.get("include_archived", "false").lower())
        if archived is None:
            raise BadSetting("include_archived: give true or false")
        known = await self._campaigns.known()
        after = query.get("last_edit.time[gt]")
        if after is not None:
            after_ms = _time("last_edit.time[gt]", after)
            known = [each for each in known if (each.updated_ms or 0) > after_ms]
        rows = listed(known, page, include_archived=archived, descending=direction == "desc")
        return {"campaigns": rows}

    async def _details(self, query: Mapping[str, str]) -> dict[str, Any]:
        known = await self._campaigns.one(_campaign_id(query))
        return details(known, await self._campaigns.found(known.name, self._campaigns.period("day", 1)))

    async def _data_series(self, query: Mapping[str, str]) -> dict[str, Any]:
        known = await self._campaigns.one(_campaign_id(query))
        length = _number(query, "length", 1, LENGTH_MAX, None)
        ending = query.get("ending_at")
        end_ms = self._clock.now_ms() if ending is None else _time("ending_at", ending)
        period = self._campaigns.period("day", length, end_of_day_s(end_ms))
        return {"data": data_series(known, await self._campaigns.found(known.name, period), period)}


def _campaign_id(query: Mapping[str, str]) -> str:
    found = query.get("campaign_id")
    if not found:
        raise BadSetting("campaign_id: it is missing; `/campaigns/list` shows the ids")
    return found


def _number(query: Mapping[str, str], name: str, low: int, high: int, default: int | None) -> int:
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high):
        raise BadSetting(f"{name}: {'it is missing' if text is None else repr(text[:20])}; give {low} to {high}")
    return int(text)


def _time(name: str, text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise BadSetting(f"{name}: {error}") from None
