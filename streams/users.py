"""One user's decisions: what a letter or a timer changes in the row, and what it asks for.

Every function takes the row as its owner's, changes it in place and returns the effects in order. `now_ms`
is never below the row's own last time.
"""

from collections.abc import Container, Sequence
from typing import TypeAlias

from streams import currents, engagements
from streams.builds import Build
from streams.campaigns.attribution import convert
from streams.campaigns.conversions import CLICKS, OPENS, SESSION
from streams.campaigns.enter import enter, forget_old, record_outcome, release, started
from streams.campaigns.merge import merge_history
from streams.campaigns.planned import enter_planned, release_planned
from streams.campaigns.schedule import Occurrence
from streams.campaigns.trigger import Campaign
from streams.effects import Effect, SegmentChange
from streams.errors import BadInput
from streams.events import Attributes, CustomEvent, Engagement, Event, Properties, Purchase, Session, Unblock
from streams.identity import tell_consent
from streams.mailbox import Cause, Outcome
from streams.profiles.apply import (
    Changes,
    apply_attributes,
    apply_event,
    apply_purchase,
    apply_session,
    seen_before,
)
from streams.profiles.engaged import apply_engagement, note_outcome, unblock
from streams.profiles.merge import merge_rows
from streams.profiles.row import User
from streams.segments.filter import earliest
from streams.segments.membership import affected, asked_of_new, next_change, timed_of, update_memberships
from streams.times import HOUR_MS
from streams.workspace import Workspace

Effects: TypeAlias = list[Effect]


def decide_event(
    user: User, user_key: str, event: Event, cause: Cause, now_ms: int, workspace: Workspace, *, is_new: bool
) -> Effects | None:
    """Apply an event to the row.

    Audiences of event and purchase triggers are checked on the state before the event, which of a new user is that of
    whoever is unknown; those of segment and attribute triggers after it.

    Returns:
        The effects in order, or None if the event's id was applied to this user within 24 h.

    Raises:
        BadInput: the row cannot take the event (a limit); nothing of the event is in the row then.
    """
    hours_passed = now_ms // HOUR_MS - user.now_ms // HOUR_MS
    user.now_ms = now_ms
    seen = user.seen
    if event.id is not None and seen_before(user, event.id, now_ms):
        return None
    if hours_passed and user.dispatches:  # looking at all of them at every event would cost more than it frees
        forget_old(user)
    properties = event.properties if isinstance(event, (CustomEvent, Purchase)) else {}
    signals = _signals(event)
    starting = _starting(user, signals, properties, now_ms, workspace, is_new=is_new)
    try:
        changes, effects = _apply(user, user_key, event, cause, now_ms, workspace)
    except BadInput:
        user.seen = seen  # refused is not applied: the event may come again once there is room
        raise
    effects += convert(user, user_key, workspace, signals, event, properties, now_ms) if user.windows else []
    for campaign in starting:
        effects += enter(user, user_key, campaign, workspace, now_ms, event.time_ms, properties)
    ordinals = asked_of_new(workspace, changes) if is_new else affected(workspace, changes)
    effects += _cross(user, user_key, workspace, ordinals, now_ms)
    if isinstance(event, (Attributes, Engagement)):
        for change in changes:
            if user.attributes.get(change.partition(":")[2]) is not None:
                effects += _start(user, user_key, workspace, change, now_ms, event.time_ms)
    _arm(user, workspace, ordinals, now_ms)
    if user.links is not None:
        effects += tell_consent(user, user_key)
    return effects


def _starting(
    user: User, signals: Sequence[str], properties: Properties, now_ms: int, workspace: Workspace, *, is_new: bool
) -> list[Campaign]:
    """What the signals of an event start; a new user is until then in the segments of whoever is unknown."""
    if is_new:
        user.memberships = dict.fromkeys(workspace.unknown, now_ms)
    found: list[Campaign] = []
    for signal in signals:
        found += started(user, workspace, signal, now_ms, properties)
    if is_new:
        user.memberships = {}  # it enters them by the event
    return found


def _signals(event: Event) -> tuple[str, ...]:
    """What an event signals to campaigns, before it is applied."""
    if isinstance(event, CustomEvent):
        return (f"event:{event.name}",)
    if isinstance(event, Purchase):
        return ("purchases", f"product:{event.product_id}")
    if isinstance(event, Session) and event.started:
        return (SESSION,)
    if isinstance(event, Engagement) and not event.machine and event.kind in ("open", "click"):
        return (OPENS if event.kind == "open" else CLICKS,)
    return ()


def _apply(
    user: User, user_key: str, event: Event, cause: Cause, now_ms: int, workspace: Workspace
) -> tuple[Changes, Effects]:
    """Write the event into the row; returns what changed and the export records."""
    if isinstance(event, CustomEvent):
        changes = apply_event(user, event, workspace.series, now_ms)
        return changes, [currents.custom_event(user_key, event, cause)]
    if isinstance(event, Purchase):
        changes = apply_purchase(user, event, workspace.series, now_ms)
        return changes, [*currents.purchases(user_key, event, cause)]
    if isinstance(event, Attributes):
        return apply_attributes(user, event), []
    if isinstance(event, Engagement):
        changes = apply_engagement(user, event)
        return changes, [*engagements.records(user_key, event, cause, user.attributes, is_new=bool(changes))]
    if isinstance(event, Unblock):
        unblock(user, event)
        return [], []
    is_first = user.sessions is None
    changes = apply_session(user, event)
    return changes, [*currents.sessions(user_key, event, cause, user.attributes, is_first=is_first)]


def decide_timer(user: User, user_key: str, now_ms: int, workspace: Workspace) -> Effects:
    """The armed timer is due: send what has waited, ask the timed segments, arm the next."""
    user.now_ms = now_ms
    user.timer_ms = None
    effects = release(user, user_key, workspace, now_ms)
    timed = timed_of(user, workspace)
    effects += _cross(user, user_key, workspace, timed, now_ms)
    if user.waiting:
        effects += release_planned(user, user_key, workspace, now_ms)
    _arm(user, workspace, timed, now_ms)
    return effects


def decide_build(user: User, user_key: str, at_ms: int, build: Build) -> Effects | None:
    """Decide the row by definitions that are new to it, as they came at `at_ms`.

    No campaign starts by what a build finds: the user did nothing then.

    Returns:
        The segment changes, marked as built; None where nothing changes in the row, which then stays as it is.
    """
    now_ms, timer_ms = max(user.now_ms, at_ms), user.timer_ms
    changed = build.keep_series(user, now_ms)
    crossings = [(name, False) for name in build.gone if user.memberships.pop(name, None) is not None]
    crossings += update_memberships(user, build.workspace, build.ordinals, now_ms)
    _arm(user, build.workspace, build.ordinals, now_ms)
    if not (changed or crossings or user.timer_ms != timer_ms):
        return None
    user.now_ms = now_ms
    return [SegmentChange(name, user_key, entered, now_ms, built=True) for name, entered in crossings]


def decide_merge(
    user: User, user_key: str, device: str, other: User, now_ms: int, workspace: Workspace
) -> tuple[Effects, int]:
    """Take in the row of a device's anonymous user, decided by the same workspace: both were this user all along.

    Campaigns start by segments that only both together enter or leave; what the anonymous user had entered or
    left has started them already.

    Returns:
        The effects in order, and how many values the row had no room for.
    """
    user.now_ms = now_ms
    joined = merge_rows(user, other, workspace.series, now_ms)
    left_out = joined.left_out + merge_history(user, other, workspace)
    effects = release(user, user_key, workspace, now_ms)
    ordinals = asked_of_new(workspace, joined.changes)
    effects += _cross(user, user_key, workspace, ordinals, now_ms, other.memberships)
    if user.waiting:
        effects += release_planned(user, user_key, workspace, now_ms)
    _arm(user, workspace, ordinals, now_ms)
    effects += tell_consent(user, user_key, (device, other))
    return effects, left_out


def decide_new(user: User, user_key: str, now_ms: int, workspace: Workspace) -> Effects:
    """A user is known of whom nothing else is."""
    ordinals = asked_of_new(workspace, ())
    effects = _cross(user, user_key, workspace, ordinals, now_ms)
    _arm(user, workspace, ordinals, now_ms)
    return effects


def decide_planned(
    user: User, user_key: str, campaign: Campaign, occurrence: Occurrence, now_ms: int, workspace: Workspace
) -> Effects | None:
    """A scheduled campaign has come to a user of its audience: send, or wait for the user's own time.

    Returns:
        What follows; None where the user's own time is past, or the user does not consent to the channel.
    """
    user.now_ms = now_ms
    effects = enter_planned(user, user_key, campaign, workspace, now_ms, occurrence)
    _arm(user, workspace, (), now_ms)
    return effects


def decide_outcome(user: User, user_key: str, outcome: Outcome) -> Effects:
    """Write what became of a dispatch. It is decided at the row's own last time and arms nothing."""
    dispatch = record_outcome(user, outcome)
    if dispatch is None:
        return []
    if dispatch.channel == "email":
        note_outcome(user, outcome)
    record = currents.message(
        user_key,
        campaign=dispatch.campaign,
        channel=dispatch.channel,
        dispatch_id=outcome.dispatch_id,
        outcome=outcome,
        variant=dispatch.variant,
    )
    if record is None:
        return []
    if outcome.delivered and outcome.kind == "sent" and dispatch.channel == "email":
        return [record, currents.delivery(record, outcome)]
    return [record]


def _cross(
    user: User,
    user_key: str,
    workspace: Workspace,
    ordinals: Sequence[int],
    now_ms: int,
    merged: Container[str] | None = None,
) -> Effects:
    """Bring memberships up to date; the changes, then what they start.

    `merged` are the segments of a user merged into this one: a crossing into where that one stood starts nothing.
    """
    effects: Effects = []
    for segment, entered in update_memberships(user, workspace, ordinals, now_ms):
        effects.append(SegmentChange(segment, user_key, entered, now_ms))
        signal = f"entered:{segment}" if entered else f"left:{segment}"
        if signal in workspace.signals and (merged is None or (segment in merged) != entered):
            effects += _start(user, user_key, workspace, signal, now_ms, now_ms)
    return effects


def _start(user: User, user_key: str, workspace: Workspace, signal: str, now_ms: int, event_ms: int) -> Effects:
    """Enter the campaigns that a signal starts on the state as it is."""
    nothing: Properties = {}
    effects: Effects = []
    campaign: Campaign
    for campaign in started(user, workspace, signal, now_ms):
        effects += enter(user, user_key, campaign, workspace, now_ms, event_ms, nothing)
    return effects


def _arm(user: User, workspace: Workspace, ordinals: Sequence[int], now_ms: int) -> None:
    """Arm an earlier timer if needed; a later need leaves the armed one, which fires, looks and re-arms."""
    due_ms = next_change(user, workspace, ordinals, now_ms)
    if user.waiting:
        due_ms = earliest([due_ms, *(waiting.due_ms for waiting in user.waiting)])
    if due_ms is not None and (user.timer_ms is None or due_ms < user.timer_ms):
        user.timer_ms = due_ms
