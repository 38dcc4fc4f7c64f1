"""What two users have received becomes one history, when they turn out to be one person."""

from msgspec.structs import replace

from streams.campaigns.conversions import merged_windows
from streams.campaigns.trigger import Campaign, has_had
from streams.campaigns.variants import merged_choice
from streams.profiles.room import may_wait, note_dispatch
from streams.profiles.row import CampaignHistory, OccurrenceId, User, Waiting
from streams.workspace import Workspace


def merge_history(user: User, other: User, workspace: Workspace) -> int:
    """Write another user's campaigns, what waits for its delay, and dispatches into the row.

    Entries are summed and the newest counts for eligibility; of two variants the user's own is the one. Dispatches
    keep their ids. What waits goes on waiting as an entry behind the user's own, unless one person could not have
    entered twice so soon: then the user's own entry is the one. What waits for the user's own time of a schedule
    waits once, and not at all where one of the two has had it.

    Returns:
        How many of what waits, and of the dispatches, the row had no room for.
    """
    left_out = 0
    planned = [waiting for waiting in user.waiting if not waiting.entry]
    for waiting in other.waiting:
        if not waiting.entry:  # counted when it is due, and asked then whether the user may enter
            if not any(_is_same(waiting, own) for own in planned):
                user.waiting.append(waiting)
            continue
        own, campaign = user.campaigns.get(waiting.campaign), workspace.campaigns.get(waiting.campaign)
        entry = waiting.entry
        if own is not None:
            if campaign is None or _is_once(campaign, own, other.campaigns[waiting.campaign]):
                continue
            entry += own.entries
        if may_wait(user, waiting.event_properties):
            user.waiting.append(replace(waiting, entry=entry))
        else:
            left_out += 1
    for name, theirs in other.campaigns.items():
        own = user.campaigns.get(name, CampaignHistory(0, theirs.last_ms))
        entries, last_ms = own.entries + theirs.entries, max(own.last_ms, theirs.last_ms)
        variant, occurrence = merged_choice(own.variant, theirs.variant), _newest(own, theirs)
        user.campaigns[name] = CampaignHistory(entries, last_ms, variant, occurrence)
    user.waiting = [
        waiting for waiting in user.waiting if not has_had(user.campaigns.get(waiting.campaign), waiting.occurrence)
    ]
    for dispatch_id, dispatch in other.dispatches.items():
        left_out += not note_dispatch(user, dispatch_id, dispatch)
    user.windows = merged_windows(user.windows, other.windows)
    return left_out


def _is_same(theirs: Waiting, own: Waiting) -> bool:
    """Whether two wait for the same occurrence, as far as that is known; where it is not, for the same campaign."""
    is_known = theirs.occurrence is not None and own.occurrence is not None
    return theirs.campaign == own.campaign and (theirs.occurrence == own.occurrence or not is_known)


def _newest(own: CampaignHistory, theirs: CampaignHistory) -> OccurrenceId | None:
    """The last occurrence that either has had: of one schedule the later one, of two the one that was due last."""
    one, other = own.occurrence, theirs.occurrence
    if one is None or other is None:
        return one or other
    if one.plan == other.plan:
        return max(one, other, key=lambda each: each.local_ms)
    return other if theirs.last_ms > own.last_ms else one


def _is_once(campaign: Campaign, own: CampaignHistory, theirs: CampaignHistory) -> bool:
    """Whether the later of two entries would not have been, had both been those of one user."""
    after_ms = campaign.re_eligible_after_ms
    return after_ms is None or abs(own.last_ms - theirs.last_ms) < after_ms
