"""Permits: whether a dispatch may go now, by pause and consent as they stand."""

from agents.definitions import Workspaces
from streams import canary
from streams.policy.consent import why_not
from tables.partition import UsersView


class Permits:
    """Reads the newest workspace and the user's row; asked before a send is rendered and before each attempt."""

    def __init__(self, users: UsersView, workspaces: Workspaces) -> None:
        self._users = users
        self._workspaces = workspaces

    def refusal(self, partition: int, campaign: str, channel: str, user: str, address: str = "") -> str:
        """Why a dispatch may not go; nothing, if it may.

        Its campaign is paused or cancelled, consent is missing or unreadable, or its address is dead, which can be
        told once the message is rendered.
        """
        if channel == canary.CHANNEL:
            return ""
        if self._workspaces.latest.is_paused(campaign):
            return "campaign_paused"
        if self._workspaces.latest.is_cancelled(campaign):
            return "campaign_cancelled"
        consent = self._users.consent(partition, user)
        if consent is None:
            return "consent_unreadable"
        attributes, reach = consent
        return why_not(channel, attributes, reach, address)
