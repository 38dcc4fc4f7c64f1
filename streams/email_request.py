"""The bodies of `POST /email/bounce/remove`, `/email/spam/remove` and `/email/status`: one record per user."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from streams import topics
from streams.codec import partition_of, to_json
from streams.errors import BadInput
from streams.events import JSONValue
from streams.ingest.raw_record import UNBLOCK, read_record
from streams.records import Output
from streams.track import decode_as
from streams.track_request import Fault, TrackRequest

USERS_MAX: Final = 50
FORM: Final = "external_ids"
NOBODY: Final = f"Give {FORM}, an array of external ids"
BY_ADDRESS: Final = f"email: nobody is found by an address yet; give {FORM}, the users whose address it is"
TOO_MANY_IDS: Final = "The max number of ids per request was exceeded"


class _Body(msgspec.Struct):
    external_ids: list[str] = []
    email: JSONValue = None


class _StatusBody(_Body, kw_only=True):
    subscription_state: Literal["subscribed", "unsubscribed", "opted_in"]


_decoder: Final = msgspec.json.Decoder(_Body)
_status_decoder: Final = msgspec.json.Decoder(_StatusBody)


def read_bounce_remove(body: bytes, now_ms: int, partitions: int) -> TrackRequest:
    """Whose addresses are mailed again though they bounced. Raises BadInput where nothing can be taken."""
    return _records(decode_as(_decoder, body), {"type": UNBLOCK, "why": "hard_bounced"}, now_ms, partitions)


def read_spam_remove(body: bytes, now_ms: int, partitions: int) -> TrackRequest:
    """Whose addresses are mailed again though they complained. Raises BadInput where nothing can be taken."""
    return _records(decode_as(_decoder, body), {"type": UNBLOCK, "why": "marked_as_spam"}, now_ms, partitions)


def read_email_status(body: bytes, now_ms: int, partitions: int) -> TrackRequest:
    """Who is subscribed from now on, or is not. Raises BadInput where nothing can be taken."""
    found = decode_as(_status_decoder, body)
    value = {"type": "attributes", "email_subscribe": found.subscription_state}
    return _records(found, value, now_ms, partitions)


def _records(found: _Body, value: Mapping[str, str], now_ms: int, partitions: int) -> TrackRequest:
    """The same record for each user, checked as intake will check it."""
    if found.email is not None:
        raise BadInput("unsupported", "email", BY_ADDRESS)
    if len(found.external_ids) > USERS_MAX:
        raise BadInput("too_many_objects", FORM, TOO_MANY_IDS)
    outputs: list[Output] = []
    faults: list[Fault] = []
    for index, user in enumerate(found.external_ids):
        data = to_json({**value, "external_id": user})
        rejected = read_record(None, data, now_ms).rejected
        if rejected:
            faults.append(Fault(f"{rejected[0].field}: {rejected[0].detail}", FORM, index))
            continue
        key = user.encode()
        outputs.append(Output(topics.EVENTS.name, partition_of(key, partitions), key, data))
    return TrackRequest(outputs, {"users": len(outputs)}, faults)
