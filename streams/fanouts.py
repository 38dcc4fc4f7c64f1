"""A fan-out: one occurrence of a scheduled campaign, decided user by user as of the moment that it was planned for."""

from collections.abc import Container, Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from streams.campaigns.schedule import Occurrence, Plan
from streams.campaigns.trigger import Campaign, is_eligible
from streams.profiles.row import CampaignHistory, User

FANOUTS_MAX: Final = 64
"""So many may be open in a partition at a time; an occurrence beyond is passed over."""

PLENTY: Final = 1 << 30
"""Slots of a plan without a rate."""

FIRST_LOCAL_MS: Final = -(1 << 62)
"""Before every time that clocks show."""

FanOutState: TypeAlias = Literal["sending", "done", "cancelled"]


class FanOut(msgspec.Struct, array_like=True):
    """How far one occurrence is in a partition.

    The audience is that of workspace `version` at `occurrence.at_ms`. `number` counts the fan-outs of the
    partition. `cursor` is the last key decided and `rows` how many those are of `users`; `entered` are those who
    got the message, or wait for their own time. Where there is a rate, `slot` follows the last of the partition's
    slots that was used, and `slot_us` is the rate's length by which that one was counted.
    """

    number: int
    campaign: str
    version: int
    occurrence: Occurrence
    users: int
    cursor: str = ""
    rows: int = 0
    entered: int = 0
    slot: int = 0
    state: FanOutState = "sending"
    ended_ms: int | None = None
    slot_us: int = 0


class Planned(msgspec.Struct, array_like=True):
    """Where a partition stands with a campaign's plan.

    Occurrences up to `since_ms`, and up to the local time `local_ms`, are over or under way; `opened` were sent,
    `missed` were passed over. `last` is the newest that has ended.
    """

    digest: str
    since_ms: int
    local_ms: int = FIRST_LOCAL_MS
    opened: int = 0
    missed: int = 0
    last: FanOut | None = None


def is_chosen(
    user: User, fanout: FanOut, campaign: Campaign, others: Iterable[FanOut], cancelled: Container[str]
) -> bool:
    """Whether the user, whose row is as it was when the fan-out began, is eligible and in its audience then.

    What the user has been chosen for by `others`, earlier ones of the same campaign, and what waits for its time,
    count as if they had been sent; not what waits of a schedule that was `cancelled` by then.
    """
    at_ms = fanout.occurrence.at_ms
    last_ms = [each.occurrence.at_ms for each in others if each.number in user.chosen] if user.chosen else []
    last_ms += [each.due_ms for each in user.waiting if each.campaign == campaign.name and each.plan not in cancelled]
    history = user.campaigns.get(campaign.name)
    if last_ms:
        history = CampaignHistory(1, max([*last_ms, *([history.last_ms] if history else [])]))
    due_ms: int | None = at_ms
    if history is not None and campaign.plan is not None:
        due_ms = campaign.plan.due_of(user, fanout.occurrence)
    if due_ms is None or not is_eligible(history, campaign, due_ms):
        return False
    return campaign.audience is None or campaign.audience.test(user, at_ms)


def is_owed(
    user: User, campaign: Campaign, occurrence: Occurrence, fanouts: Iterable[FanOut], cancelled: Container[str]
) -> bool:
    """Whether a user has an occurrence to come that an anonymous user, who is this one by now, was chosen for.

    Not one who was chosen for it as well, had it, or had, or will have, another too near to it: one person would get
    no more. `fanouts` are the open ones of the user's partition; what waits of a `cancelled` schedule never comes.
    """
    assert campaign.plan is not None
    name = campaign.name
    chosen = [each.occurrence for each in fanouts if each.number in user.chosen and each.campaign == name]
    is_had = any(each.local_ms == occurrence.local_ms for each in chosen)
    due_ms = campaign.plan.due_of(user, occurrence)
    waits = any(each.campaign == name and each.plan not in cancelled for each in user.waiting)
    if due_ms is None or is_had or waits:
        return False
    last_ms = [each.at_ms for each in chosen]
    if name in user.campaigns:
        last_ms.append(user.campaigns[name].last_ms)
    newest_ms = max(last_ms, default=due_ms - 1)
    return newest_ms < due_ms and (not last_ms or is_eligible(CampaignHistory(1, newest_ms), campaign, due_ms))


def free_slots(fanout: FanOut, plan: Plan, now_ms: int, place: tuple[int, int]) -> range:
    """The slots of this partition that may be used now, by their own numbers; of a plan without a rate, plenty.

    Slot n of partition p of P lies (n · P + p) slot lengths behind the occurrence, so that all partitions together
    hold the rate without knowing of each other. A slot that nobody used in time is lost.
    """
    if not plan.slot_us:
        return range(PLENTY)
    partition, partitions = place
    passed_us = (now_ms - fanout.occurrence.at_ms) * 1_000
    newest = (passed_us // plan.slot_us - partition) // partitions
    lost = ((passed_us - plan.late_us) // plan.slot_us - partition) // partitions
    return range(max(_unused(fanout, plan, newest, place), lost + 1), newest + 1)


def _unused(fanout: FanOut, plan: Plan, newest: int, place: tuple[int, int]) -> int:
    """The first slot behind the last that was used, whose number may be one of a rate of before.

    From that one to the next it is a turn of the partitions by the faster of both rates, as if that had held on.
    """
    if fanout.slot_us == plan.slot_us:
        return fanout.slot
    if not fanout.slot_us:  # none was used, or it was noted without its length: beyond the newest it is of another
        return fanout.slot if fanout.slot <= newest + 1 else 0
    partition, partitions = place
    used_us = ((fanout.slot - 1) * partitions + partition) * fanout.slot_us
    next_us = used_us + partitions * min(fanout.slot_us, plan.slot_us)
    return -((partition - -(-next_us // plan.slot_us)) // partitions)


def use_slots(fanout: FanOut, plan: Plan, slots: range, count: int) -> None:
    """So many of the free slots have been used."""
    if plan.slot_us and count:
        fanout.slot, fanout.slot_us = slots.start + count, plan.slot_us
