"""What happened, as the export records that Currents readers know: behaviours and message lifecycles."""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Final

from streams.campaigns.conversions import Conversion
from streams.campaigns.variants import CONTROL
from streams.codec import to_json
from streams.effects import CurrentsRecord
from streams.events import CustomEvent, JSONValue, Purchase, Session
from streams.ids import currents_id, definition_api_id, dispatch_id, user_id, variation_api_id
from streams.mailbox import Cause, Outcome
from streams.policy.retry import RETRIES_EXHAUSTED
from streams.profiles.row import OpenWindow
from streams.times import SECOND_MS

ABORT_LOG_CHARS_MAX: Final = 128
REASON_CHARS_MAX: Final = 1_024

_FLOAT_MAX: Final = 3.4028234663852886e38  # of the 32 bits that the schema gives a price
_INT_MAX: Final = 2**31 - 1  # of the 32 bits that the schema gives an int
_CAMPAIGNS_REMEMBERED_MAX: Final = 4_096
_PERSON: Final = {"gender": "gender", "country": "country", "language": "language", "time_zone": "timezone"}
_SLUG: Final = re.compile(r"[a-z][a-z0-9_]*(?=:|$)")
_REJECTION: Final = re.compile(r"55\d(?!\w)")
_DEFERRAL: Final = re.compile(r"4\d\d(?!\w)")
_STATUS: Final = re.compile(r"([1-5]\d\d)(?!\w)")
_ENDPOINT: Final = re.compile(r"https?://(?P<host>[^/?#]+)(?P<path>[^?#]*)")


def custom_event(external_id: str, event: CustomEvent, cause: Cause) -> CurrentsRecord:
    """The `users.behaviors.CustomEvent` of a custom event."""
    fields: dict[str, JSONValue] = {
        "id": _behaviour_id(cause, 0),
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        "name": event.name,
        "properties": to_json(event.properties).decode(),
    }
    return CurrentsRecord("users.behaviors.CustomEvent", event.time_ms, fields)


def purchases(external_id: str, purchase: Purchase, cause: Cause) -> list[CurrentsRecord]:
    """One `users.behaviors.Purchase` per unit, at the price of one unit, since exports know no quantity.

    Costs as many records as the purchase has units: intake bounds the quantity.
    """
    shared: dict[str, JSONValue] = {
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        "product_id": purchase.product_id,
        "price": max(-_FLOAT_MAX, min(float(purchase.price), _FLOAT_MAX)),
        "currency": purchase.currency,
        "properties": to_json(purchase.properties).decode(),
    }
    return [
        CurrentsRecord("users.behaviors.Purchase", purchase.time_ms, {"id": _behaviour_id(cause, unit), **shared})
        for unit in range(purchase.quantity)
    ]


def sessions(
    external_id: str, event: Session, cause: Cause, attributes: Mapping[str, JSONValue], *, is_first: bool
) -> list[CurrentsRecord]:
    """The `SessionStart` or `SessionEnd` under `users.behaviors.app`, a user's first start as `FirstSession` too.

    An id that nobody gave is empty: the two ids are not nullable in the schema. A duration is what the
    end says of it, for the start of a session is not kept. The first session tells who the user was known
    to be at that moment.
    """
    shared: dict[str, JSONValue] = {
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        "app_id": event.app_id or "",
        "session_id": event.session_id or "",
    }
    kind = "SessionStart" if event.started else "SessionEnd"
    lasted: dict[str, JSONValue] = {} if event.duration_s is None else {"duration": event.duration_s}
    records = [_app(kind, event, {"id": _behaviour_id(cause, 0), **shared, **lasted})]
    if event.started and is_first:
        known = {name: attributes[field] for field, name in _PERSON.items() if attributes.get(field) is not None}
        records.append(_app("FirstSession", event, {"id": _behaviour_id(cause, 1), **shared, **known}))
    return records


def _app(kind: str, event: Session, fields: dict[str, JSONValue]) -> CurrentsRecord:
    return CurrentsRecord(f"users.behaviors.app.{kind}", event.time_ms, fields)


def orphan(user_key: str, device_id: str, merged_into: str, time_ms: int, cause: Cause) -> CurrentsRecord:
    """The `users.UserOrphan` of an anonymous user who was merged into a known one, whose `user_id` it tells."""
    fields: dict[str, JSONValue] = {
        "id": _behaviour_id(cause, 0),
        "user_id": user_id(user_key),
        "external_user_id": user_key,
        "device_id": device_id,
        "orphaned_by_id": user_id(merged_into),
    }
    return CurrentsRecord("users.UserOrphan", time_ms, fields)


def enroll_in_control(external_id: str, campaign: str, dispatch_id: str, at_ms: int) -> CurrentsRecord:
    """The `users.campaigns.EnrollInControl` of an entry that sends nothing; `dispatch_id` stands for the entry."""
    event_type = "users.campaigns.EnrollInControl"
    fields: dict[str, JSONValue] = {
        "id": currents_id(dispatch_id, event_type),
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        **campaign_fields(campaign, CONTROL),
    }
    return CurrentsRecord(event_type, at_ms, fields)


def conversion(
    external_id: str,
    incarnation: int,
    campaign: str,
    window: OpenWindow,
    converted: Conversion,
    time_ms: int,
    amount: tuple[Decimal, str] | None,
) -> CurrentsRecord:
    """The `users.campaigns.Conversion` of an entry, at the event's own time.

    `conversion_behavior` is a JSON text. It says what was done, and beside that when the message was decided
    (`sent_at`, in seconds), and the `revenue` and `currency` of a purchase that no other conversion of it has.
    """
    event_type = "users.campaigns.Conversion"
    entry = dispatch_id(campaign, external_id, incarnation, window.entry)
    behaviour: dict[str, JSONValue] = {**converted.behaviour, "sent_at": window.at_ms // SECOND_MS}
    if amount is not None:
        behaviour |= {"revenue": str(amount[0]), "currency": amount[1]}
    fields: dict[str, JSONValue] = {
        "id": currents_id(entry, event_type, str(converted.index), str(window.at_ms)),
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        **campaign_fields(campaign, window.variant),
        "conversion_behavior_index": converted.index,
        "conversion_behavior": to_json(behaviour).decode(),
    }
    return CurrentsRecord(event_type, time_ms, fields)


def campaign_fields(campaign: str, variant: str) -> dict[str, JSONValue]:
    """The fields that name a campaign and its variant; one with a single message has an id of it and no name."""
    campaign_id, variation_id = _campaign_ids(campaign, variant)
    fields = {"campaign_id": campaign_id, "campaign_name": campaign, "message_variation_id": variation_id}
    if variant:
        fields["message_variation_name"] = variant
    return fields


def message(
    external_id: str, *, campaign: str, channel: str, dispatch_id: str, outcome: Outcome, variant: str = ""
) -> CurrentsRecord | None:
    """The record under `users.messages.<channel>` that tells what became of a dispatch, if one does.

    | outcome | email | webhook |
    | --- | --- | --- |
    | sent | `Send`, and `delivery` where a server took it | `Send` |
    | aborted | `Abort` | `Abort` |
    | failed | `Bounce`, `SoftBounce` or `Abort`, as below | `Failure`, terminal |
    | retry | `Retry` | `Retry` |
    | held | None: it is still open | None |

    A bounce means that the reason begins with an SMTP reply of 550 to 559, the codes of RFC 5321 by
    which the receiving system refuses a mailbox or a message for good. Soft means that the last retry ended by
    one of 400 to 499. Everything else that ends an email (a refused login, a provider that was away
    until the retries ran out) says nothing about the address, so it is an `Abort`.

    The channel `log`, and any other without export records of its own, gives None.
    """
    kind, details = _lifecycle(channel, outcome)
    if kind is None:
        return None
    event_type = f"users.messages.{channel}.{kind}"
    fields: dict[str, JSONValue] = {
        "id": currents_id(dispatch_id, event_type, str(outcome.attempt)),
        "user_id": user_id(external_id),
        "external_user_id": external_id,
        "dispatch_id": dispatch_id,
        **campaign_fields(campaign, variant),
        **details,
    }
    if channel == "email":
        fields["email_address"] = outcome.address
    return CurrentsRecord(event_type, outcome.at_ms, fields)


def delivery(sent: CurrentsRecord, outcome: Outcome) -> CurrentsRecord:
    """The `users.messages.email.Delivery` of a mail that a server has taken over, from the record of its `Send`."""
    event_type = "users.messages.email.Delivery"
    record_id = currents_id(outcome.dispatch_id, event_type, str(outcome.attempt))
    return CurrentsRecord(event_type, sent.time_ms, {**sent.fields, "id": record_id})


def _behaviour_id(cause: Cause, unit: int) -> str:
    # One part: what follows the topic id is numbers, so nothing can be read two ways, and it is faster.
    return currents_id(f"{cause.topic_id}/{cause.partition}/{cause.offset}/{cause.item}/{unit}")


@lru_cache(maxsize=_CAMPAIGNS_REMEMBERED_MAX)
def _campaign_ids(campaign: str, variant: str) -> tuple[str, str]:
    return definition_api_id("campaign", campaign), variation_api_id(campaign, variant)


def _lifecycle(channel: str, outcome: Outcome) -> tuple[str | None, dict[str, JSONValue]]:
    """The last segment of the event type, None for no record, and the fields that only this type has."""
    if channel not in {"email", "webhook"} or outcome.kind == "held":
        return None, {}
    if outcome.kind == "sent":
        return "Send", {}
    if outcome.kind == "retry":
        return "Retry", _retry(outcome)
    if outcome.kind == "aborted":
        return "Abort", _abort(outcome)
    if channel == "webhook":
        return "Failure", _failure(outcome)
    if _REJECTION.match(outcome.reason):
        return "Bounce", {"bounce_reason": outcome.reason[:REASON_CHARS_MAX]}
    last = outcome.reason.removeprefix(RETRIES_EXHAUSTED)
    if last != outcome.reason and _DEFERRAL.match(last):
        return "SoftBounce", {"bounce_reason": last[:REASON_CHARS_MAX]}
    return "Abort", _abort(outcome)


def _abort(outcome: Outcome) -> dict[str, JSONValue]:
    """The slug before the reason's first colon as type, the outcome's kind where there is none; the rest."""
    slug = _SLUG.match(outcome.reason)
    fields: dict[str, JSONValue] = {"abort_type": slug[0] if slug else outcome.kind}
    if outcome.reason:
        fields["abort_log"] = outcome.reason[:ABORT_LOG_CHARS_MAX]
    return fields


def _retry(outcome: Outcome) -> dict[str, JSONValue]:
    """The slug of the reason, or the code of the other side's answer, as type; the whole reason as log."""
    named = _SLUG.match(outcome.reason) or _STATUS.match(outcome.reason)
    fields: dict[str, JSONValue] = {"retry_type": named[0] if named else outcome.kind}
    if outcome.reason:
        fields["retry_log"] = outcome.reason[:ABORT_LOG_CHARS_MAX]
    return fields


def _failure(outcome: Outcome) -> dict[str, JSONValue]:
    """A reason that begins with an HTTP status is the endpoint's answer; any other is the source."""
    fields: dict[str, JSONValue] = {"is_terminal": True, "retry_count": max(0, outcome.attempt - 1)}
    reason = outcome.reason.removeprefix(RETRIES_EXHAUSTED)
    status = _STATUS.match(reason)
    if status:
        fields["http_status_code"] = int(status[1])
        fields["raw_response"] = reason[:REASON_CHARS_MAX]
    elif reason:
        fields["webhook_failure_source"] = reason[:REASON_CHARS_MAX]
    if outcome.duration_ms:
        fields["webhook_duration"] = min(outcome.duration_ms, _INT_MAX)
    endpoint = _ENDPOINT.match(outcome.address)
    if endpoint:
        fields["endpoint_url"] = outcome.address
        fields["host"] = endpoint["host"]
        fields["url_path"] = endpoint["path"] or "/"
    return fields
