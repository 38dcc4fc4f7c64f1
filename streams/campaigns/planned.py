"""Entering a scheduled campaign: at once, or when it is the user's own time."""

from streams.campaigns.enter import note_entry, send_of
from streams.campaigns.schedule import Occurrence
from streams.campaigns.trigger import Campaign, accepts, has_had
from streams.effects import Effect
from streams.policy.consent import may_receive
from streams.profiles.row import OccurrenceId, User, Waiting
from streams.workspace import Workspace


def enter_planned(
    user: User, user_key: str, campaign: Campaign, workspace: Workspace, now_ms: int, occurrence: Occurrence
) -> list[Effect] | None:
    """Let a user of the audience in, or wait for the user's own time.

    Whether the user may enter again counts from when the campaign was due, not from when it came to this user. What an
    anonymous user who is this one by now waits for gives way to the user's own time.

    Returns:
        What follows; None where the user's own time is past, without consent, and for whoever has had it by now, as
        an anonymous user whose turn came before they were one.
    """
    plan = campaign.plan
    assert plan is not None
    due_ms, occurrence_id = plan.due_of(user, occurrence), None if plan.kind == "at" else occurrence.id
    if due_ms is None or _was_had(user, campaign, due_ms, occurrence_id):
        return None
    if occurrence_id is not None:
        user.waiting = [each for each in user.waiting if not each.is_of(campaign.name, occurrence_id)]
    if due_ms > now_ms:
        user.waiting.append(Waiting(due_ms, campaign.name, 0, {}, occurrence_id))
        return []
    if not may_receive(campaign.channel, user.attributes):
        return None
    return _enter(user, user_key, campaign, workspace, now_ms, due_ms, occurrence_id)


def release_planned(user: User, user_key: str, workspace: Workspace, now_ms: int) -> list[Effect]:
    """Send what has waited for the user's own time, to whoever is still in the audience, in order of due time.

    Where the campaign is paused, cancelled or gone by then, or the user has unsubscribed, nothing is sent later; nor to
    whoever has had it by now, as an anonymous user in a partition whose clock is ahead. What was cancelled stays so
    when the campaign has another schedule since.
    """
    due = sorted(
        (waiting for waiting in user.waiting if not waiting.entry and waiting.due_ms <= now_ms),
        key=lambda waiting: (waiting.due_ms, waiting.campaign),
    )
    if not due:
        return []
    user.waiting = [waiting for waiting in user.waiting if waiting.entry or waiting.due_ms > now_ms]
    effects: list[Effect] = []
    for waiting in due:
        campaign = workspace.scheduled.get(waiting.campaign)
        if campaign is None or workspace.is_paused(campaign.name):
            continue
        if waiting.plan in workspace.cancelled.get(campaign.name, ()):
            continue
        if _was_had(user, campaign, waiting.due_ms, waiting.occurrence):
            continue
        if may_receive(campaign.channel, user.attributes) and accepts(campaign, user, now_ms):
            effects += _enter(user, user_key, campaign, workspace, now_ms, waiting.due_ms, waiting.occurrence)
    return effects


def _was_had(user: User, campaign: Campaign, due_ms: int, occurrence: OccurrenceId | None) -> bool:
    """Whether the user has had what was due then, or what came behind it: an entry counts from when it was due."""
    history = user.campaigns.get(campaign.name)
    return history is not None and (history.last_ms >= due_ms or has_had(history, occurrence))


def _enter(
    user: User,
    user_key: str,
    campaign: Campaign,
    workspace: Workspace,
    now_ms: int,
    due_ms: int,
    occurrence: OccurrenceId | None,
) -> list[Effect]:
    entry = note_entry(user, user_key, campaign, due_ms, occurrence)
    return [send_of(user, user_key, campaign, workspace, now_ms, entry, {})]
