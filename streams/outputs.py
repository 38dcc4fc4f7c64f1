"""Effects as records: each to its topic, keyed by user, in the partition that decided it; letters to the user's own.

What a merged user does with a message is recorded in the partition of the user whom it was decided for.
"""

from collections.abc import Iterable

import msgspec

from streams import topics
from streams.codec import pack, partition_of, to_json
from streams.dead_letters import STAND_IN, dead_letter
from streams.effects import CurrentsRecord, Effect, Post, Refused, SegmentChange
from streams.exports import SCHEMAS, topic_headers, topic_value
from streams.ids import DEVICE_PREFIX
from streams.records import Output, Record
from streams.sends import SEND_BYTES_MAX, Send
from streams.times import format_time


def to_outputs(effects: Iterable[Effect], partition: int, partitions: int = 0) -> list[Output]:
    """The records that carry the effects, in their order.

    `partitions` is needed where there are letters, or records that go by another user.
    """
    return [
        _post(effect, partitions)
        if type(effect) is Post
        else _OUTPUT_OF[type(effect)](effect, _home(effect, partition, partitions))
        for effect in effects
    ]


def _home(effect: Effect, partition: int, partitions: int) -> int:
    if type(effect) is not CurrentsRecord or not effect.home:
        return partition
    assert partitions > 0, "a record that goes by another user needs the number of partitions"
    return partition_of(effect.home.encode(), partitions)


def _post(effect: Post, partitions: int) -> Output:
    assert partitions > 0, "a letter to another user needs the number of partitions"
    key = effect.user.encode()
    return Output(topics.MAILBOX.name, partition_of(key, partitions), key, pack(effect.letter))


def _send(effect: Effect, partition: int) -> Output:
    assert isinstance(effect, Send)
    topic = topics.sends_topic(effect.channel, effect.lane)
    value = to_json(effect)
    if len(value) > SEND_BYTES_MAX:
        refusal = f"send_bytes: what its templates read takes {len(value)} bytes, at most {SEND_BYTES_MAX}"
        nothing = msgspec.structs.replace(effect, profile={}, custom={}, event_properties={}, refusal=refusal)
        value = to_json(nothing)
    return Output(topic, partition, effect.user.encode() or None, value)


class _Change(msgspec.Struct, omit_defaults=True):
    """The JSON of a segment change, for anyone who wants the stream; `built` stands there only where it is true."""

    segment: str
    external_id: str
    change: str
    time: str
    built: bool = False


def _change(effect: Effect, partition: int) -> Output:
    assert isinstance(effect, SegmentChange)
    kind = "enter" if effect.entered else "leave"
    change = _Change(effect.segment, effect.user, kind, format_time(effect.time_ms), effect.built)
    return Output(topics.SEGMENT_CHANGES.name, partition, effect.user.encode(), to_json(change))


def _currents(effect: Effect, partition: int) -> Output:
    assert isinstance(effect, CurrentsRecord)
    key = str(effect.fields["external_user_id"])
    if key.startswith(DEVICE_PREFIX):
        effect = _of_anonymous(effect, key)
    return Output(topics.CURRENTS.name, partition, key.encode(), topic_value(effect), topic_headers(effect))


def _of_anonymous(record: CurrentsRecord, key: str) -> CurrentsRecord:
    """A record about a user without external id: the device's id instead, where its schema has a field for it."""
    fields = {name: value for name, value in record.fields.items() if name != "external_user_id"}
    if record.event_type in _WITH_DEVICE:
        fields["device_id"] = key.removeprefix(DEVICE_PREFIX)
    return CurrentsRecord(record.event_type, record.time_ms, fields, record.home)


_WITH_DEVICE = frozenset(
    event_type
    for event_type, schema in SCHEMAS.items()
    if any(field["name"] == "device_id" for field in schema["fields"])
)


def _refused(effect: Effect, partition: int) -> Output:
    assert isinstance(effect, Refused)
    record = effect.record or Record(effect.cause.offset, effect.now_ms, effect.user.encode(), effect.raw)
    letter = dead_letter(
        record,
        topic=topics.EVENTS.name,
        partition=effect.cause.partition,
        item=effect.cause.item,
        reason=effect.reason,
        field=effect.field,
        detail=effect.detail,
        at_ms=effect.now_ms,
    )
    headers = letter.headers if effect.record else (*letter.headers, STAND_IN)
    return msgspec.structs.replace(letter, partition=partition, headers=headers)


_OUTPUT_OF = {
    Send: _send,
    SegmentChange: _change,
    CurrentsRecord: _currents,
    Refused: _refused,
}
