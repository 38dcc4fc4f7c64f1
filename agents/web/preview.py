"""A message as one user would get it now: rendered like a real one, and neither recorded nor counted."""

import email
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final

import msgspec

from agents.definitions import Workspaces
from agents.delivery.rendering import Rendering
from agents.web.queries import Queries
from channels.tracking import UnsentTracking
from config.clock import Clock
from config.settings import Settings
from streams.campaigns.enter import send_of
from streams.campaigns.trigger import Campaign
from streams.errors import BadSetting
from streams.policy.consent import why_not
from streams.profiles.row import CampaignHistory, User
from streams.sends import Send
from tables.dispatches import Dispatch

UNSENT: Final = "0" * 32
"""The dispatch id of a message that is only looked at."""

Answer = dict[str, Any]


class Previews:
    """Reads rows and definitions; renders on a copy of the row, so that nothing is left of it."""

    def __init__(self, settings: Settings, workspaces: Workspaces, queries: Queries, clock: Clock) -> None:
        self._workspaces = workspaces
        self._queries = queries
        self._clock = clock
        base = settings.tracking_base or "https://headrace.invalid"
        self._rendering = Rendering(workspaces, settings.webhook_url or "", UnsentTracking(base))

    def preview(
        self, *, campaign: str, user: str, variant: str = "", to: str = "", dispatch_id: str = UNSENT
    ) -> Answer | None:
        """The message of a campaign to a user, as it would be decided and rendered now.

        Its links lead where they lead: they are not counted, and no link of it unsubscribes anybody. `why_not` says
        what would keep it from being sent; it is rendered all the same, as far as it can be.

        Args:
            campaign: its name.
            user: whose profile fills it.
            variant: by name; without one that which the user would get.
            to: another address for a mail to go to, for a test.
            dispatch_id: what the message is called by.

        Returns:
            The parts of the message; None where another worker holds the user.

        Raises:
            BadSetting: no such campaign, variant or user.
        """
        found = self._workspaces.latest.campaigns.get(campaign)
        if found is None:
            known = ", ".join(sorted(self._workspaces.latest.campaigns)) or "none"
            raise BadSetting(f"no campaign {campaign!r}; campaigns are {known}")
        if variant and variant not in found.messages:
            raise BadSetting(f"no variant {variant!r}; variants are {', '.join(found.messages)}")
        row = self._queries.row(user)
        if row is None:
            return None
        reasons = self._reasons(found, row)
        send = self._send(found, row, user, variant)
        if send is None:
            return _answer(campaign, user, "control", None, [*reasons, "control_group: it gets no message"])
        profile = {**send.profile, **({"email_address": to} if to else {})}
        send = msgspec.structs.replace(send, dispatch_id=dispatch_id, profile=profile)
        dispatch, refusal = self._rendering.dispatch(send, "")
        refusals = [refusal] if refusal else []
        return _answer(campaign, user, send.variant, None if refusal else dispatch, reasons + refusals)

    def _reasons(self, campaign: Campaign, row: User) -> list[str]:
        """What would keep any message of the campaign from the user now."""
        latest = self._workspaces.latest
        address = str(row.attributes.get("email") or "")
        is_out = campaign.audience is not None and not campaign.audience.test(row, self._now_ms(row))
        found = {
            "campaign_paused": latest.is_paused(campaign.name),
            "campaign_cancelled": latest.is_cancelled(campaign.name),
            "not_in_audience": is_out,
            (why_not(campaign.channel, row.attributes, row.reach, address) or "-"): True,
        }
        return [reason for reason, holds in found.items() if holds and reason != "-"]

    def _send(self, campaign: Campaign, row: User, user: str, variant: str) -> Send | None:
        """The send as the campaign would decide it; None in the control group."""
        now_ms = self._now_ms(row)
        if variant:
            row.campaigns[campaign.name] = CampaignHistory(1, now_ms, variant)
        row.campaigns.setdefault(campaign.name, CampaignHistory(1, now_ms))
        effect = send_of(row, user, campaign, self._workspaces.latest, now_ms, 1, {})
        return effect if isinstance(effect, Send) else None

    def _now_ms(self, row: User) -> int:
        return max(self._clock.now_ms(), row.now_ms)


def _answer(campaign: str, user: str, variant: str, dispatch: Dispatch | None, why_not: list[str]) -> Answer:
    """The parts of a rendered message; of a mail as a mail program shows them."""
    answer: Answer = {"campaign": campaign, "user": user, "variant": variant, "why_not": why_not}
    if dispatch is None:
        return answer
    answer |= {"channel": dispatch.channel, "address": dispatch.address}
    if dispatch.channel != "email":
        return {**answer, "body": dispatch.request.decode("utf-8", "replace")}
    message = email.message_from_bytes(dispatch.request, policy=default)
    assert isinstance(message, EmailMessage)
    headers = {name.lower(): str(message[name]) for name in ("From", "Reply-To", "To", "Subject") if message[name]}
    bodies = {kind: _body(message, kind) for kind in ("plain", "html")}
    return {
        **answer,
        **headers,
        "text": bodies["plain"],
        "html": bodies["html"],
        "mail": dispatch.request.decode("ascii"),
    }


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return "" if part is None else str(part.get_content())
