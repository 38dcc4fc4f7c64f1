"""What operators see of campaigns: whether one is scheduled, under way or done, how far it is, and until when."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from agents.web.replay import Asked
from streams.campaigns.trigger import Campaign
from streams.errors import HeadraceError
from streams.fanouts import FIRST_LOCAL_MS, FanOut
from streams.positions import Position
from streams.times import format_time
from streams.workspace import Workspace

Answer = dict[str, Any]

ANSWER_S_MAX: Final = 0.5
"""A look at the state of everything does not wait for a worker that stands still."""

STATES: Final = ("sending", "paused", "cancelled", "scheduled", "live", "done")
"""The first that holds in one worker holds for the campaign. `live`: it is started by what users do."""


def campaign_rows(
    workspace: Workspace, positions: Iterable[Position], sent: Mapping[str, int], now_ms: int
) -> list[Answer]:
    """A row per campaign, in order of name, over some partitions.

    `users`, `decided` and `entered` are of the newest occurrence, which begins in each partition at a millisecond of
    its own where its schedule was defined late; `sent` counts what providers took, ever; `ends` is when a fan-out
    under way ends if it goes on as it has.
    """
    found = list(positions)
    return [_row(each, workspace, found, sent.get(name, 0), now_ms) for name, each in workspace.campaigns.items()]


def _row(campaign: Campaign, workspace: Workspace, positions: list[Position], sent: int, now_ms: int) -> Answer:
    name = campaign.name
    fanouts = [newest for each in positions if (newest := _newest(each, name)) is not None]
    occurrence = max((each.occurrence for each in fanouts), key=lambda each: each.at_ms, default=None)
    current = [each for each in fanouts if occurrence and each.occurrence.local_ms == occurrence.local_ms]
    began_ms = min((each.occurrence.at_ms for each in current), default=None)
    opened = [each for each in current if each.ended_ms is None]
    next_ms = _next(campaign, workspace, positions)
    users, decided = sum(each.users for each in current), sum(min(each.rows, each.users) for each in current)
    state = _state(campaign, workspace, current, next_ms, now_ms)
    ends_ms = None
    if opened and state == "sending" and began_ms is not None and decided:
        ends_ms = now_ms + (now_ms - began_ms) * (users - decided) // decided
    return {
        "campaign": name,
        "state": state,
        "next": None if next_ms is None else format_time(next_ms),
        "began": None if began_ms is None else format_time(began_ms),
        "users": users,
        "decided": users if current and not opened and state != "cancelled" else decided,
        "entered": sum(each.entered for each in current),
        "sent": sent,
        "ends": None if ends_ms is None else format_time(ends_ms),
    }


def _newest(position: Position, name: str) -> FanOut | None:
    """The oldest open fan-out of a campaign, else the last that has ended."""
    opened = next((each for each in position.fanouts if each.campaign == name), None)
    planned = position.plans.get(name)
    return opened if opened is not None or planned is None else planned.last


def _next(campaign: Campaign, workspace: Workspace, positions: list[Position]) -> int | None:
    plan = campaign.plan
    if plan is None or campaign.name not in workspace.scheduled:
        return None
    times = []
    for position in positions:
        planned = position.plans.get(campaign.name)
        is_known = planned is not None and planned.digest == plan.digest
        since_ms, local_ms = (
            (planned.since_ms, planned.local_ms) if planned and is_known else (position.clock_ms, FIRST_LOCAL_MS)
        )
        coming = plan.next_after(since_ms, local_ms)
        times += [coming.at_ms] if coming is not None else []
    return min(times, default=None)


def _state(campaign: Campaign, workspace: Workspace, current: list[FanOut], next_ms: int | None, now_ms: int) -> str:
    plan = campaign.plan
    if workspace.is_cancelled(campaign.name):
        return "cancelled"
    if workspace.is_paused(campaign.name):
        return "paused"
    if plan is None:
        return "live"
    is_open = any(each.ended_ms is None or now_ms < plan.over_ms(each.occurrence) for each in current)
    if is_open:
        return "sending"
    return "done" if next_ms is None else "scheduled"


def under_way(rows: Iterable[Answer]) -> list[Answer]:
    """Of campaigns' rows those whose fan-out has users still to decide: how many it has, of how many, and its end."""
    names = ("campaign", "decided", "users", "ends")
    running = (row for row in rows if row["state"] == "sending" and row["decided"] < row["users"])
    return [{name: row[name] for name in names} for row in running]


async def sending_of(asked: Asked) -> list[Answer]:
    """The fan-outs under way; none where a worker does not answer at once, of which the board tells."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            rows: Any = await asked.ask("campaigns", {})
    except (OSError, HeadraceError):
        return []
    return under_way(rows)


def merge_campaigns(answers: list[list[Answer]]) -> list[Answer]:
    """The rows of several workers as one row per campaign."""
    merged: dict[str, Answer] = {}
    for row in (row for answer in answers for row in answer):
        known = merged.get(row["campaign"])
        if known is None:
            merged[row["campaign"]] = dict(row)
            continue
        for name in ("users", "decided", "entered", "sent"):
            known[name] += row[name]
        known["state"] = min(known["state"], row["state"], key=STATES.index)
        known["next"] = min((time for time in (known["next"], row["next"]) if time), default=None)
        for name in ("began", "ends"):
            known[name] = max((time for time in (known[name], row[name]) if time), default=None)
    return [merged[name] for name in sorted(merged)]
