"""Effects as records: each to its topic, keyed by user, in the partition that decided it."""

from collections.abc import Iterable

import msgspec

from streams import topics
from streams.codec import to_json
from streams.dead_letters import STAND_IN, dead_letter
from streams.effects import CurrentsRecord, Effect, Refused, SegmentChange
from streams.exports import topic_headers, topic_value
from streams.records import Output, Record
from streams.sends import Send
from streams.times import format_time


def to_outputs(effects: Iterable[Effect], partition: int) -> list[Output]:
    """The records that carry the effects, in their order."""
    return [_OUTPUT_OF[type(effect)](effect, partition) for effect in effects]


def _send(effect: Effect, partition: int) -> Output:
    assert isinstance(effect, Send)
    return Output(topics.sends_topic(effect.channel), partition, effect.user.encode() or None, to_json(effect))


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
    key = str(effect.fields["external_user_id"]).encode()
    return Output(topics.CURRENTS.name, partition, key, topic_value(effect), topic_headers(effect))


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
