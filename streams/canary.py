"""The canary: a user without a row, whose event becomes a message like anyone's, so that the way can be timed.

Nothing of it is in a count, a segment, a scan or an export: those follow from rows, and it has none.
"""

from typing import Final

import msgspec

from streams import ids, topics
from streams.codec import to_json
from streams.mailbox import Probe
from streams.records import Output
from streams.sends import Send

CHANNEL: Final = "canary"
"""Of its sends, which travel on the topic of `log` and go to a provider of their own."""

CAMPAIGN: Final = "~canary"
"""What stands where a campaign's name does; no definition can have that name."""

TYPE: Final = "canary"


class _Event(msgspec.Struct, tag_field="type", tag=TYPE, forbid_unknown_fields=True):
    sender: str
    number: int


_decoder: Final = msgspec.json.Decoder(_Event)


def event(partition: int, probe: Probe) -> Output:
    """The record that sets out in a partition of events."""
    return Output(topics.EVENTS.name, partition, None, to_json(_Event(probe.sender, probe.number)))


def read_event(value: bytes) -> Probe:
    """The probe in such a record. Raises msgspec.ValidationError for any other shape."""
    found = _decoder.decode(value)
    return Probe(found.sender, found.number)


def dispatch_id(probe: Probe) -> str:
    """The dispatch that the probe becomes, whatever is done twice on the way."""
    return ids.dispatch_id(CAMPAIGN, probe.sender, 0, probe.number)


def send(probe: Probe, version: int, now_ms: int) -> Send:
    """What the fold decides for a probe: always this."""
    return Send(dispatch_id(probe), CAMPAIGN, CHANNEL, "", version, now_ms, {}, {}, {})
