"""Entering a campaign: history, delay, and the send that follows."""

from typing import Final

from streams import currents, ids
from streams.campaigns.conversions import open_window
from streams.campaigns.trigger import Campaign, accepts
from streams.campaigns.variants import CONTROL, choose
from streams.effects import Effect
from streams.events import Properties
from streams.mailbox import FINAL_KINDS, Outcome
from streams.policy.consent import may_receive
from streams.profiles.fields import BY_TAG
from streams.profiles.room import DISPATCHES_MAX, may_wait, note_dispatch
from streams.profiles.row import CampaignHistory, OccurrenceId, OpenDispatch, User, Waiting
from streams.sends import Send
from streams.workspace import Workspace

WAITS_FOR_TOO_MUCH: Final = "user_waiting: too many entries, or too large ones, wait for their delay"
AWAITS_TOO_MANY: Final = f"user_dispatches: {DISPATCHES_MAX} dispatches of the user are open"
"""Why a send is aborted: the limit of the row, and what was beyond it."""


def started(
    user: User, workspace: Workspace, signal: str, now_ms: int, properties: Properties | None = None
) -> list[Campaign]:
    """The campaigns, none of them paused, that a signal starts for this user on this state, in order of name."""
    found: list[Campaign] = []
    for campaign in workspace.signals.get(signal, ()):
        matches = campaign.matches
        if (matches is None or matches(properties or {})) and accepts(campaign, user, now_ms):
            found.append(campaign)
    return found


def enter(
    user: User,
    user_key: str,
    campaign: Campaign,
    workspace: Workspace,
    now_ms: int,
    event_ms: int,
    properties: Properties,
) -> list[Effect]:
    """Let the user in: decide the send at once, or wait until the event's time plus the delay.

    A user who does not consent to the channel does not enter, and stays eligible.
    """
    if not may_receive(campaign.channel, user.attributes):
        return []
    entry = note_entry(user, user_key, campaign, now_ms)
    due_ms = min(event_ms, now_ms) + campaign.delay_ms
    read = {name: properties[name] for name in campaign.reads.event_properties if name in properties}
    if campaign.delay_ms and due_ms > now_ms:
        if may_wait(user, read):
            user.waiting.append(Waiting(due_ms, campaign.name, entry, read))
            return []
        return [send_of(user, user_key, campaign, workspace, now_ms, entry, {}, WAITS_FOR_TOO_MUCH)]
    return [send_of(user, user_key, campaign, workspace, now_ms, entry, read)]


def note_entry(
    user: User, user_key: str, campaign: Campaign, at_ms: int, occurrence: OccurrenceId | None = None
) -> int:
    """Write into the row that the user enters, and as which variant; returns the number of the entry."""
    history = user.campaigns.get(campaign.name)
    entry = history.entries + 1 if history else 1
    variant = choose(campaign.name, campaign.variants, campaign.control, user_key, history)
    user.campaigns[campaign.name] = CampaignHistory(entry, at_ms, variant, occurrence)
    return entry


def release(user: User, user_key: str, workspace: Workspace, now_ms: int) -> list[Effect]:
    """Send what has waited long enough, in order of due time.

    An entry into a campaign that is paused or gone by then, or of a user who has unsubscribed since,
    is over: nothing is sent later.
    """
    if not user.waiting:
        return []
    due = sorted(
        (waiting for waiting in user.waiting if waiting.entry and waiting.due_ms <= now_ms),
        key=lambda waiting: (waiting.due_ms, waiting.campaign, waiting.entry),
    )
    user.waiting = [waiting for waiting in user.waiting if waiting.due_ms > now_ms or not waiting.entry]
    effects: list[Effect] = []
    for waiting in due:
        campaign = workspace.campaigns.get(waiting.campaign)
        if campaign is None or workspace.is_paused(campaign.name):
            continue
        if may_receive(campaign.channel, user.attributes):
            properties = waiting.event_properties
            effects.append(send_of(user, user_key, campaign, workspace, now_ms, waiting.entry, properties))
    return effects


def send_of(
    user: User,
    user_key: str,
    campaign: Campaign,
    workspace: Workspace,
    now_ms: int,
    entry: int,
    properties: Properties,
    refusal: str = "",
) -> Effect:
    """The send of the user's n-th entry, or for a user of the control group the record that there is none.

    The variant was chosen at the entry; where its definition is gone since, it is chosen anew. The row waits for a
    send's outcome, unless it waits for too many.

    Args:
        user: changed in place.
        user_key: whose row it is.
        campaign: what the user has entered.
        workspace: whose version renders it.
        now_ms: the time of the decision.
        entry: the number of the entry.
        properties: those of the event that the messages read.
        refusal: why it is aborted rather than sent; empty where it is not.
    """
    dispatch = ids.dispatch_id(campaign.name, user_key, user.incarnation, entry)
    history = user.campaigns[campaign.name]
    variant = history.variant = choose(campaign.name, campaign.variants, campaign.control, user_key, history)
    if campaign.conversions:
        open_window(user, campaign.name, entry, variant, now_ms)
    if variant == CONTROL:
        return currents.enroll_in_control(user_key, campaign.name, dispatch, now_ms)
    if not note_dispatch(user, dispatch, OpenDispatch(campaign.name, campaign.channel, now_ms, variant=variant)):
        refusal = AWAITS_TOO_MANY
    attributes = user.attributes
    profile = {tag: attributes.get(BY_TAG.get(tag, tag)) for tag in campaign.reads.profile}
    return Send(
        dispatch,
        campaign.name,
        campaign.channel,
        user_key,
        workspace.version,
        now_ms,
        {tag: value for tag, value in profile.items() if value is not None},
        {name: attributes[name] for name in campaign.reads.custom if name in attributes},
        properties,
        variant,
        "transactional" if campaign.plan is None else "bulk",
        refusal,
    )


KEPT_AFTER_FINAL_MS = 72 * 3_600_000


def record_outcome(user: User, outcome: Outcome) -> OpenDispatch | None:
    """Write what became of a dispatch; a final outcome is never replaced, and is forgotten after 72 h.

    An outcome that is not final gives way to a final one, to any of a later attempt, and to another kind
    of the same attempt; never to one of an earlier attempt.

    Returns:
        The dispatch if this outcome says something new, else None.
    """
    dispatch = user.dispatches.get(outcome.dispatch_id)
    if dispatch is None or dispatch.final_ms:
        return None
    is_final = outcome.kind in FINAL_KINDS
    told = (dispatch.attempt, dispatch.outcome)
    if not is_final and (outcome.attempt < dispatch.attempt or (outcome.attempt, outcome.kind) == told):
        return None
    dispatch.outcome, dispatch.attempt = outcome.kind, outcome.attempt
    if is_final:
        dispatch.final_ms = outcome.at_ms
    forget_old(user)
    return dispatch


def forget_old(user: User) -> None:
    """Drop dispatches that have been final for 72 h by the row's own time; costs a look at each of them."""
    dispatches = user.dispatches
    old = [
        name
        for name, dispatch in dispatches.items()
        if dispatch.final_ms and dispatch.final_ms + KEPT_AFTER_FINAL_MS <= user.now_ms
    ]
    for name in old:
        del dispatches[name]
