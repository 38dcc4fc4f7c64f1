"""The body of `POST /users/identify`: one record per device whose anonymous user is known now."""

from typing import Final

import msgspec

from streams import topics
from streams.codec import partition_of, to_json
from streams.errors import BadInput
from streams.ids import device_key
from streams.ingest.raw_record import IDENTIFY, read_record
from streams.records import Output
from streams.track import decode_as
from streams.track_request import Fault, TrackRequest

DEVICES_MAX: Final = 50
FORM: Final = "devices_to_identify"
NOTHING_TO_IDENTIFY: Final = f"Give {FORM}, an array of objects with device_id and external_id"
TOO_MANY_IDS: Final = "The max number of ids per request was exceeded"
NOT_YET: Final = ("aliases_to_identify", "emails_to_identify", "phone_numbers_to_identify")
"""Braze's arrays, for which there are no profiles here: nobody is known by an alias, an address or a number alone."""


class _Body(msgspec.Struct):
    devices_to_identify: list[msgspec.Raw] = []
    aliases_to_identify: list[msgspec.Raw] = []
    emails_to_identify: list[msgspec.Raw] = []
    phone_numbers_to_identify: list[msgspec.Raw] = []


class _Pair(msgspec.Struct):
    device_id: str
    external_id: str


_decoder: Final = msgspec.json.Decoder(_Body)
_pair_decoder: Final = msgspec.json.Decoder(_Pair)


def read_identify_request(body: bytes, now_ms: int, partitions: int) -> TrackRequest:
    """Split a body into records keyed by their devices; each pair is checked as intake will check it.

    Objects of Braze's own arrays are named as faults, since nobody here is known by what they say.

    Raises:
        BadInput: nothing of it can be taken; `detail` is the message for the caller.
    """
    try:
        parts = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("bad_json", "", str(error)) from None
    if sum(len(getattr(parts, name)) for name in (FORM, *NOT_YET)) > DEVICES_MAX:
        raise BadInput("too_many_objects", "", TOO_MANY_IDS)
    outputs: list[Output] = []
    faults: list[Fault] = []
    for index, data in enumerate(parts.devices_to_identify):
        try:
            outputs.append(_record(data, now_ms, partitions))
        except BadInput as error:
            faults.append(Fault(f"{error.field}: {error.detail}".removeprefix(": "), FORM, index))
    for name in NOT_YET:
        said = f"not supported yet: there are no such profiles; identify devices by {FORM}"
        faults += [Fault(said, name, index) for index in range(len(getattr(parts, name)))]
    return TrackRequest(outputs, {"devices": len(outputs)}, faults)


def _record(data: msgspec.Raw, now_ms: int, partitions: int) -> Output:
    pair = decode_as(_pair_decoder, data)
    value = to_json({"type": IDENTIFY, "device_id": pair.device_id, "external_id": pair.external_id})
    rejected = read_record(None, value, now_ms).rejected
    if rejected:
        raise BadInput(rejected[0].reason, rejected[0].field, rejected[0].detail)
    key = device_key(pair.device_id).encode()
    return Output(topics.EVENTS.name, partition_of(key, partitions), key, value)
