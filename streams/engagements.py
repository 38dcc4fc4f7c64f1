"""What recipients and mail servers did with our mails, as the export records that Currents readers know."""

from collections.abc import Mapping
from typing import Final

from streams.currents import campaign_fields
from streams.effects import CurrentsRecord
from streams.events import Engagement, JSONScalar, JSONValue
from streams.ids import currents_id, user_id
from streams.mailbox import Cause

_TYPES: Final = {
    "open": "Open",
    "click": "Click",
    "unsubscribe": "Unsubscribe",
    "bounce": "Bounce",
    "soft_bounce": "SoftBounce",
    "complaint": "MarkAsSpam",
}
_STATUS: Final = {
    "unsubscribe": "Unsubscribed",
    "complaint": "Unsubscribed",
    "subscribed": "Subscribed",
    "opted_in": "Opted In",
}
_GLOBAL: Final = "users.behaviors.subscription.GlobalStateChange"


def records(
    external_id: str, event: Engagement, cause: Cause, attributes: Mapping[str, JSONScalar], *, is_new: bool
) -> list[CurrentsRecord]:
    """The records under `users.messages.email`, and a `GlobalStateChange` where the subscription changed.

    `is_new`: the subscription changed. A second click on an unsubscribe link unsubscribes nobody, so it has no record.
    """
    shared = _shared(external_id, event, attributes)
    found = []
    name = _TYPES.get(event.kind)
    if name is not None and (is_new or event.kind != "unsubscribe"):
        fields = {"id": _id(cause, 0), **shared, "dispatch_id": event.claims.dispatch_id}
        home = event.claims.user if event.claims.user != external_id else ""
        kind = f"users.messages.email.{name}"
        found.append(CurrentsRecord(kind, event.time_ms, {**fields, **_details(event)}, home))
    if is_new:
        status = {"subscription_status": _STATUS[event.kind], "channel": "email"}
        fields = {"id": _id(cause, 1), **shared, **status}
        fields.pop("message_variation_name", None)  # this schema has the id alone
        if event.source:
            fields["state_change_source"] = event.source
        found.append(CurrentsRecord(_GLOBAL, event.time_ms, fields))
    return found


def _id(cause: Cause, number: int) -> str:
    """The id of the n-th record of one item of the events topic."""
    return currents_id(f"{cause.topic_id}/{cause.partition}/{cause.offset}/{cause.item}/{number}")


def _shared(external_id: str, event: Engagement, attributes: Mapping[str, JSONScalar]) -> dict[str, JSONValue]:
    fields: dict[str, JSONValue] = {
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        **campaign_fields(event.claims.campaign, event.claims.variant),
        "email_address": event.address or str(attributes.get("email") or ""),
    }
    if attributes.get("time_zone"):
        fields["timezone"] = attributes["time_zone"]
    return fields


def _details(event: Engagement) -> dict[str, JSONValue]:
    """The fields that only some types have."""
    fields: dict[str, JSONValue] = {}
    if event.kind in ("open", "click", "complaint") and event.user_agent:
        fields["user_agent"] = event.user_agent
    if event.kind == "open" and event.machine:
        fields["machine_open"] = "true"
    if event.kind == "click":
        fields["url"] = event.url
        fields["is_suspected_bot_click"] = event.machine
    if event.kind in ("bounce", "soft_bounce") and event.reason:
        fields["bounce_reason"] = event.reason
    return fields
