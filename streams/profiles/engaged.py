"""What an engagement changes in a row: opens and clicks per campaign, the subscription, and the address itself."""

from typing import Final

from streams.events import Engagement, Unblock
from streams.mailbox import Outcome
from streams.policy.bounces import is_dead
from streams.profiles.hours import note_activity
from streams.profiles.row import Engaged, Reachability, User

CAMPAIGNS_MAX: Final = 50
"""Campaigns whose opens and clicks a row remembers: those of the newest engagements."""

SUBSCRIPTION: Final = "email_subscribe"
_STATES: Final = {"unsubscribe": "unsubscribed", "subscribed": "subscribed", "opted_in": "opted_in"}
_BLOCKS: Final = {"bounce": "hard_bounced", "complaint": "marked_as_spam"}


def apply_engagement(user: User, event: Engagement) -> list[str]:
    """Write an engagement into the row; returns what changed, as `attribute:<path>`, and nothing for the rest."""
    if event.kind in ("open", "click"):
        _engage(user, event)
        return []
    if event.kind == "complaint" or (event.kind == "bounce" and is_dead(event.reason)):
        block(user, event.address or str(user.attributes.get("email", "")), _BLOCKS[event.kind], event.time_ms)
    state = "unsubscribed" if event.kind == "complaint" else _STATES.get(event.kind)
    if state is None or user.attributes.get(SUBSCRIPTION) == state:
        return []
    user.attributes[SUBSCRIPTION] = state
    if user.reach is None:
        user.reach = Reachability()
    user.reach.changed_ms = event.time_ms
    return [f"attribute:{SUBSCRIPTION}"]


def note_outcome(user: User, outcome: Outcome) -> None:
    """Let the answer of a mail server to a mail be known of its address."""
    if outcome.kind == "failed" and is_dead(outcome.reason):
        block(user, outcome.address, "hard_bounced", outcome.at_ms)


def block(user: User, address: str, why: str, at_ms: int) -> None:
    """Let nothing more be sent to an address of the user's; what was said of it first stays."""
    if user.reach is None:
        user.reach = Reachability()
    if user.reach.blocked != address:
        user.reach.blocked, user.reach.why, user.reach.blocked_ms = address, why, at_ms


def unblock(user: User, event: Unblock) -> None:
    """Let the user's address be mailed again; one that was blocked for another reason stays blocked."""
    reach = user.reach
    if reach is not None and reach.blocked and reach.why == event.why:
        reach.blocked, reach.why, reach.blocked_ms = "", "", 0


def _engage(user: User, event: Engagement) -> None:
    campaign = event.claims.campaign
    found = user.engaged.get(campaign)
    if found is None:
        if len(user.engaged) >= CAMPAIGNS_MAX:
            del user.engaged[min(user.engaged, key=lambda name: (user.engaged[name].last_ms, name))]
        found = user.engaged[campaign] = Engaged()
    found.last_ms = max(found.last_ms, event.time_ms)
    if event.kind == "click":
        found.clicks += 1
        if not event.machine:
            note_activity(user, event.time_ms)
            found.click_ms = max(found.click_ms, event.time_ms)
        return
    found.opens += 1
    found.machine_opens += event.machine
    if not event.machine:
        note_activity(user, event.time_ms)
        found.open_ms = max(found.open_ms, event.time_ms)


def join_engaged(user: User, other: User) -> None:
    """Count the opens and clicks of another row of the same person; what is known of an address stays known."""
    for campaign, more in other.engaged.items():
        known = user.engaged.get(campaign)
        if known is None:
            if len(user.engaged) < CAMPAIGNS_MAX:
                user.engaged[campaign] = more
            continue
        known.opens += more.opens
        known.machine_opens += more.machine_opens
        known.clicks += more.clicks
        known.open_ms = max(known.open_ms, more.open_ms)
        known.click_ms = max(known.click_ms, more.click_ms)
        known.last_ms = max(known.last_ms, more.last_ms)
    if user.reach is None:
        user.reach = other.reach
