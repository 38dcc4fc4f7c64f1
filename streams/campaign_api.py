"""Campaigns as the REST API of Braze shows them: the list, one in detail, and what became of it day by day."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from streams.campaign_report import Found, Period, total_of
from streams.campaigns.conversions import compile_conversions
from streams.campaigns.variants import CONTROL
from streams.definitions import CampaignDefinition
from streams.ids import definition_api_id, variation_api_id
from streams.reports import BEHAVIOURS_MAX, DAY_S, Counts
from streams.times import DAY_MS, SECOND_MS, format_time

PAGE_CAMPAIGNS: Final = 100
LENGTH_MAX: Final = 100

_EMAIL: Final[Mapping[str, Callable[[Counts], int]]] = {
    "sent": lambda counts: counts.sent,
    "opens": lambda counts: counts.opens + counts.machine_opens,
    "unique_opens": lambda counts: counts.unique_opens_all,
    "clicks": lambda counts: counts.clicks,
    "unique_clicks": lambda counts: counts.unique_clicks,
    "unsubscribes": lambda counts: counts.unsubscribes,
    "bounces": lambda counts: counts.bounces,
    "delivered": lambda counts: counts.delivered,
    "reported_spam": lambda counts: counts.spam,
}
_STATS: Final[Mapping[str, Mapping[str, Callable[[Counts], int]]]] = {
    "email": _EMAIL,
    "webhook": {"sent": lambda counts: counts.sent, "errors": lambda counts: counts.errors},
}


class Known(msgspec.Struct, frozen=True):
    """A campaign that is defined now, or was once: then `definition` is the last one, and `is_gone` holds."""

    name: str
    definition: CampaignDefinition | None = None
    created_ms: int | None = None
    updated_ms: int | None = None
    is_paused: bool = False
    is_gone: bool = False

    @property
    def api_id(self) -> str:
        """What the API calls it."""
        return definition_api_id("campaign", self.name)

    @property
    def variants(self) -> list[str]:
        """The names of its variants, nothing for a single message, `control` last where there is that group."""
        if self.definition is None:
            return []
        names = [each.name for each in self.definition.variants] or [""]
        return [*names, *([CONTROL] if self.definition.control else [])]


def find(known: Iterable[Known], campaign_id: str) -> Known | None:
    """The campaign of an API id, or of a name."""
    return next((each for each in known if campaign_id in (each.api_id, each.name)), None)


def listed(known: Sequence[Known], page: int, *, include_archived: bool, descending: bool) -> list[dict[str, Any]]:
    """A page of `/campaigns/list`, in order of the last edit."""
    wanted = [each for each in known if include_archived or not each.is_gone]
    wanted.sort(key=lambda each: (each.updated_ms or 0, each.name), reverse=descending)
    return [
        {
            "id": each.api_id,
            "last_edited": _time(each.updated_ms),
            "name": each.name,
            "is_api_campaign": False,
            "tags": [],
        }
        for each in wanted[page * PAGE_CAMPAIGNS : (page + 1) * PAGE_CAMPAIGNS]
    ]


def details(known: Known, found: Found) -> dict[str, Any]:
    """The body of `/campaigns/details`, but for its message."""
    definition = known.definition
    first_s, last_s = found.about.first_sent_s, found.about.last_sent_s
    return {
        "created_at": _time(known.created_ms),
        "updated_at": _time(known.updated_ms),
        "archived": known.is_gone,
        "draft": False,
        "enabled": not (known.is_paused or known.is_gone),
        "has_post_launch_draft": False,
        "name": known.name,
        "description": definition.description if definition else "",
        "schedule_type": _schedule_type(definition),
        "channels": [definition.channel] if definition else [found.about.channel],
        "first_sent": _time(first_s * SECOND_MS or None),
        "last_sent": _time(last_s * SECOND_MS or None),
        "tags": [],
        "teams": [],
        "messages": _messages(definition) if definition else {},
        "conversion_behaviors": _behaviours(definition) if definition else [],
    }


def _behaviours(definition: CampaignDefinition) -> list[dict[str, Any]]:
    return [dict(each.behaviour) for each in compile_conversions(definition.conversions, definition.channel)]


def _schedule_type(definition: CampaignDefinition | None) -> str:
    return "time_based" if getattr(definition, "schedule", None) is not None else "action_based"


def _messages(definition: CampaignDefinition) -> dict[str, Any]:
    """Each message by its variation id, as it is written; the control group among them."""
    written = {each.name: each.message for each in definition.variants} or {"": definition.message or {}}
    found = {
        variation_api_id(definition.name, name): {**message, "channel": definition.channel, "name": name}
        for name, message in written.items()
    }
    if definition.control:
        found[variation_api_id(definition.name, CONTROL)] = {"name": CONTROL, "type": "control"}
    return found


def data_series(known: Known, found: Found, period: Period) -> list[dict[str, Any]]:
    """The `data` of `/campaigns/data_series`: one item per day of the period, the first first.

    The campaign's own numbers leave the control group out, which received nothing.
    """
    channel = known.definition.channel if known.definition else found.about.channel
    names = known.variants or sorted(found.totals)
    return [_day(known.name, channel, names, found, number) for number in range(period.first, period.last + 1)]


def _day(campaign: str, channel: str, names: Sequence[str], found: Found, number: int) -> dict[str, Any]:
    nothing = Counts()
    by_variant = {name: found.series.get(name, {}).get(number, nothing) for name in names}
    by_variant |= {name: days[number] for name, days in found.series.items() if number in days}
    treated = total_of(counts for name, counts in by_variant.items() if name != CONTROL)
    messages = [_message(campaign, channel, name, counts) for name, counts in by_variant.items()]
    return {
        "time": format_time(number * DAY_S * SECOND_MS)[:10],
        "messages": {channel: messages},
        **_conversions(treated),
        "unique_recipients": treated.recipients,
        **_revenue(treated),
    }


def _message(campaign: str, channel: str, variant: str, counts: Counts) -> dict[str, Any]:
    stats = {} if variant == CONTROL else _STATS.get(channel, {})
    return {
        "variation_name": variant,
        "variation_api_id": variation_api_id(campaign, variant),
        **{name: count(counts) for name, count in stats.items()},
        "unique_recipients": counts.recipients,
        **_conversions(counts),
        **_revenue(counts),
    }


def _conversions(counts: Counts) -> dict[str, int]:
    found = {}
    for at in range(BEHAVIOURS_MAX):
        name = f"conversions{at or ''}"
        found[name], found[f"{name}_by_send_time"] = counts.conversions[at], counts.conversions_by_send[at]
    return found


def _revenue(counts: Counts) -> dict[str, Any]:
    """One number, as the API has it: the amount in the currency with the largest; all of them beside it."""
    amounts = counts.revenue
    main = max(sorted(amounts), key=lambda currency: amounts[currency], default=None)
    found: dict[str, Any] = {"revenue": float(amounts[main] if main else Decimal(0))}
    if main:
        found["revenue_by_currency"] = {currency: str(amount) for currency, amount in sorted(amounts.items())}
    return found


def _time(time_ms: int | None) -> str | None:
    return None if time_ms is None else format_time(time_ms)


def end_of_day_s(time_ms: int) -> int:
    """The last second of the day in which a time lies."""
    return (time_ms // DAY_MS + 1) * DAY_S - 1
