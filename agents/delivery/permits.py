"""Permits: whether a dispatch may go now, by pause and consent as they stand."""

from agents.definitions import Workspaces
from streams import canary
from streams.policy.consent import may_receive
from tables.partition import UsersView


class Permits:
    """Reads the newest workspace and the user's row; asked before a send is rendered and before each attempt."""

    def __init__(self, users: UsersView, workspaces: Workspaces) -> None:
        self._users = users
        self._workspaces = workspaces

    def refusal(self, partition: int, campaign: str, channel: str, user: str) -> str:
        """Why a dispatch may not go: its campaign is paused or cancelled, or consent is not to be had; else nothing."""
        if channel == canary.CHANNEL:
            return ""
        if self._workspaces.latest.is_paused(campaign):
            return "campaign_paused"
        if self._workspaces.latest.is_cancelled(campaign):
            return "campaign_cancelled"
        attributes = self._users.attributes(partition, user)
        if attributes is None:
            return "consent_unreadable"
        return "" if may_receive(channel, attributes) else "unsubscribed"
