"""The body of `POST /users/track`: one record per object, and Braze's answer about each."""

from typing import Final

import msgspec

from streams import topics
from streams.codec import partition_of
from streams.errors import BadInput
from streams.ids import DEVICE_PREFIX
from streams.ingest.raw_record import read_record
from streams.records import Output

OBJECTS_MAX: Final = 75
ARRAYS: Final = ("attributes", "events", "purchases")
NOTHING_VALID: Final = "Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."
TOO_MANY: Final = "Max Input Length Exceeded"
NO_USER: Final = "'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required"


class _Body(msgspec.Struct):
    attributes: list[msgspec.Raw] = []
    events: list[msgspec.Raw] = []
    purchases: list[msgspec.Raw] = []


class Fault(msgspec.Struct, frozen=True):
    """Why one object was not taken, as Braze says it: `index` counts within its array."""

    type: str
    input_array: str
    index: int


class TrackRequest(msgspec.Struct, frozen=True):
    """What to append to the events topic, how many objects of each array that is, and what was refused."""

    outputs: list[Output]
    processed: dict[str, int]
    faults: list[Fault]


_decoder: Final = msgspec.json.Decoder(_Body)


def read_track_request(body: bytes, now_ms: int, partitions: int) -> TrackRequest:
    """Split a body into records keyed by their users; objects are checked as intake will check them.

    Raises:
        BadInput: nothing of it can be taken; `detail` is the message for the caller.
    """
    try:
        parts = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("bad_json", "", str(error)) from None
    objects = [(array, index, bytes(data)) for array in ARRAYS for index, data in enumerate(getattr(parts, array))]
    if len(objects) > OBJECTS_MAX:
        raise BadInput("too_many_objects", "", TOO_MANY)
    if not objects:
        raise BadInput("empty", "", NOTHING_VALID)
    outputs: list[Output] = []
    faults: list[Fault] = []
    processed: dict[str, int] = {}
    for array, index, data in objects:
        value = b'{"%s":[%s]}' % (array.encode(), data)
        reading = read_record(None, value, now_ms)
        if reading.rejected:
            first = reading.rejected[0]
            said = NO_USER if first.reason == "missing_user" else f"{first.field}: {first.detail}".removeprefix(": ")
            faults.append(Fault(said, array, index))
            continue
        user = reading.routed[0].user
        if user.startswith(DEVICE_PREFIX):  # anonymous users are the SDK's
            faults.append(Fault(NO_USER, array, index))
            continue
        key = user.encode()
        outputs.append(Output(topics.EVENTS.name, partition_of(key, partitions), key, value))
        processed[array] = processed.get(array, 0) + 1
    return TrackRequest(outputs, processed, faults)
