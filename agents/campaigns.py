"""Campaigns and their reports, for whoever asks: the command line, the REST API, the page."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from agents.definitions import Workspaces
from agents.report_source import ReportSource
from streams.campaign_api import Known, find
from streams.campaign_report import (
    LENGTH_MAX,
    Found,
    Period,
    gather,
    numbers_of,
    period_of,
    rates_of,
    report,
    total_of,
)
from streams.campaigns.variants import CONTROL
from streams.definitions import CampaignDefinition
from streams.errors import BadSetting
from streams.reports import Counts, Unit
from streams.times import SECOND_MS

LENGTH: Final = {"day": 30, "hour": 48}
"""Buckets of an answer to a question that says nothing of them."""


class Campaigns:
    """What is defined, and what became of it."""

    def __init__(self, workspaces: Workspaces, source: ReportSource, now_ms: Callable[[], int]) -> None:
        self._workspaces = workspaces
        self._source = source
        self._now_ms = now_ms

    async def stop(self) -> None:
        """Give back what questions have taken."""
        await self._source.stop()

    async def known(self) -> list[Known]:
        """Every campaign that is or was defined, or was ever sent, in order of name."""
        found: dict[str, Known] = {}
        last: dict[str, CampaignDefinition] = {}
        for at_ms, definitions in self._workspaces.history():
            now = {each.name: each for each in definitions.campaigns}
            for name, definition in now.items():
                old = found.get(name)
                created_ms = at_ms if old is None else old.created_ms
                updated_ms = at_ms if old is None or last[name] != definition else old.updated_ms
                found[name] = Known(name, definition, created_ms, updated_ms)
                last[name] = definition
            for name, each in found.items():
                found[name] = msgspec.structs.replace(each, is_gone=name not in now)
        workspace = self._workspaces.latest
        for name, each in found.items():
            found[name] = msgspec.structs.replace(each, is_paused=workspace.is_paused(name))
        for name, _ in await self._source.abouts():
            found.setdefault(name, Known(name, is_gone=True))
        return [found[name] for name in sorted(found)]

    async def one(self, campaign: str) -> Known:
        """The campaign of a name or an API id. Raises BadSetting, naming those that there are."""
        known = await self.known()
        found = find(known, campaign)
        if found is None:
            names = ", ".join(each.name for each in known) or "none"
            raise BadSetting(f"no campaign {campaign!r}; campaigns are {names}")
        return found

    async def found(self, campaign: str, period: Period) -> Found:
        """What became of a campaign, in a period and over all time."""
        totals = await self._source.totals()
        return gather(
            campaign, await self._source.abouts(), totals + await self._source.series(campaign, period.unit), period
        )

    async def answer(self, campaign: str = "", unit: str = "day", length: int = 0) -> dict[str, Any] | list[Any]:
        """A campaign's report as of now; without a name that of all."""
        return await self.report(campaign, unit, length) if campaign else await self.overview()

    async def report(self, campaign: str, unit: str = "day", length: int = 0, end_s: int = 0) -> dict[str, Any]:
        """One campaign's report, its period ending with the bucket of `end_s`, or now.

        Raises:
            BadSetting: no such campaign, or a period that cannot be had.
        """
        period = self.period(unit, length, end_s)
        known = await self.one(campaign)
        answer = report(known.name, await self.found(known.name, period), period, known.variants)
        if known.definition is not None:
            answer["channel"] = known.definition.channel
        return answer

    def period(self, unit: str, length: int = 0, end_s: int = 0) -> Period:
        """The period of a question. Raises BadSetting."""
        if unit not in LENGTH:
            raise BadSetting(f"unit {unit!r}: give {' or '.join(LENGTH)}")
        checked: Unit = "hour" if unit == "hour" else "day"
        if not 0 <= length <= LENGTH_MAX[checked]:
            raise BadSetting(f"length {length}: give 1 to {LENGTH_MAX[checked]} by the {unit}")
        return period_of(checked, length or LENGTH[checked], end_s or self._now_ms() // SECOND_MS)

    async def overview(self) -> list[dict[str, Any]]:
        """Every campaign with its counts over all time, the control group's left out, in order of name."""
        totals, abouts = await self._source.totals(), await self._source.abouts()
        period = self.period("day", 1)
        return [overview_row(each, gather(each.name, abouts, totals, period)) for each in await self.known()]


def overview_row(known: Known, found: Found) -> dict[str, Any]:
    """One campaign in the list of all."""
    treated = total_of(counts for name, counts in found.totals.items() if name != CONTROL)
    return {
        "campaign": known.name,
        "channel": known.definition.channel if known.definition else found.about.channel,
        "state": "gone" if known.is_gone else "paused" if known.is_paused else "active",
        "variants": len(known.definition.variants) if known.definition else 0,
        "control": found.totals.get(CONTROL, Counts()).control,
        "totals": numbers_of(treated),
        "rates": rates_of(treated),
    }
