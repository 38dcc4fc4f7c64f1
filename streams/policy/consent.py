"""Consent: an unsubscribed user is never mailed, nor is an address that is dead or has complained."""

from collections.abc import Mapping

from streams.domains import same_mailbox
from streams.events import JSONScalar
from streams.profiles.row import Reachability


def may_receive(channel: str, attributes: Mapping[str, JSONScalar]) -> bool:
    """Whether a user with these attributes consents to the channel.

    Braze's default target: `subscribed` (also when nothing is said) and `opted_in` receive email;
    webhooks and log lines reach the operator's own systems and ask for no consent.
    """
    return channel != "email" or attributes.get("email_subscribe") != "unsubscribed"


def why_not(channel: str, attributes: Mapping[str, JSONScalar], reach: Reachability | None, address: str) -> str:
    """Why a message may not go to an address: `unsubscribed`, `hard_bounced` or `marked_as_spam`; else nothing.

    What was said of one address says nothing of another: a user who gives a new one is mailed again.
    """
    if not may_receive(channel, attributes):
        return "unsubscribed"
    if channel != "email" or reach is None or not reach.blocked or not same_mailbox(reach.blocked, address):
        return ""
    return reach.why
