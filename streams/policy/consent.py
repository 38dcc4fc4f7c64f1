"""Consent: an unsubscribed user is never mailed."""

from collections.abc import Mapping

from streams.events import JSONScalar


def may_receive(channel: str, attributes: Mapping[str, JSONScalar]) -> bool:
    """Whether a user with these attributes consents to the channel.

    Braze's default target: `subscribed` (also when nothing is said) and `opted_in` receive email;
    webhooks and log lines reach the operator's own systems and ask for no consent.
    """
    return channel != "email" or attributes.get("email_subscribe") != "unsubscribed"
