"""Intake: an events record becomes letters in the mailboxes of its users, or dead letters."""

from functools import lru_cache
from typing import Final

import msgspec

from streams import topics
from streams.codec import pack, partition_of
from streams.dead_letters import MORE, WHOLE, dead_letter, letters_max
from streams.engagement import SigningKeys
from streams.fold import ClockMode
from streams.ingest.raw_record import Identified, Rejected, Routed, read_record
from streams.mailbox import Cause, Happening, Identify, Tick
from streams.records import Output, Record
from streams.replays import replayed_items

KNOWN_USERS_MAX: Final = 65_536


@lru_cache(KNOWN_USERS_MAX)
def _partition_of_user(user: str, partitions: int) -> int:
    """The mailbox partition of a user; remembered, since hashing in Python takes microseconds."""
    return partition_of(user.encode(), partitions)


def route(
    record: Record, topic_id: str, partition: int, partitions: int, clock: ClockMode, keys: SigningKeys = ()
) -> list[Output]:
    """What one record of the events topic puts into mailboxes and dead-letters, in order of its items.

    A pure function of the record's bytes and append time, and of the keys that engagements are signed by, so
    that a repeated intake appends the same causes again and the mailboxes drop them. Under the stream clock
    the events partition i feeds only mailbox i, so that a replay is the same whatever runs when. Of a dead
    letter's replay only the items that were refused count.
    """
    replay = clock == "stream"
    reading = read_record(record.key, record.value, record.append_ms, replay=replay, keys=keys)
    outputs, refused = list[Output](), list[Rejected]()
    items = replayed_items(record.headers) if record.headers else None
    for routed in reading.routed:
        if items is not None and routed.item not in items:
            continue
        target = _partition_of_user(routed.user, partitions)
        if replay and target != partition:
            refused.append(_misplaced(routed.item, partition, target))
        else:
            outputs.append(_letter(routed, Cause(topic_id, partition, record.offset, routed.item), target))
    if reading.identified is not None and (items is None or 0 in items):
        target = _partition_of_user(reading.identified.user, partitions)
        if replay and target != partition:
            outputs.append(_refuse(record, partition, _misplaced(0, partition, target)))
        else:
            outputs.append(_identify(reading.identified, Cause(topic_id, partition, record.offset, 0), target))
    refused += [each for each in reading.rejected if items is None or each.whole or each.item in items]
    outputs.extend(_refusals(record, partition, refused))
    if reading.end is not None:
        outputs.append(Output(topics.MAILBOX.name, partition, None, pack(Tick(reading.end.at_ms))))
    if reading.probe is not None:
        outputs.append(Output(topics.MAILBOX.name, partition, None, pack(reading.probe)))
    return outputs


def _misplaced(item: int, partition: int, target: int) -> Rejected:
    detail = f"partition {partition}, expected {target}: a replay is partitioned by external id (murmur2)"
    return Rejected(item, "wrong_partition", "external_id", detail)


def _letter(routed: Routed, cause: Cause, target: int) -> Output:
    return Output(topics.MAILBOX.name, target, routed.user.encode(), pack(Happening(routed.event, cause)))


def _identify(found: Identified, cause: Cause, target: int) -> Output:
    letter = Identify(found.external_id, found.time_ms, cause)
    return Output(topics.MAILBOX.name, target, found.user.encode(), pack(letter))


def _refusals(record: Record, partition: int, refused: list[Rejected]) -> list[Output]:
    """A letter for each; where that would be too many copies of the record, the last stands for all that are left."""
    most = letters_max(len(record.value))
    letters = [_refuse(record, partition, each) for each in refused[:most]]
    if more := refused[most:]:
        last = refused[most - 1]
        detail = f"{last.detail}; {len(more)} more objects of the record are refused, each for its own reason"
        letters[-1] = _refuse(record, partition, msgspec.structs.replace(last, detail=detail))
        numbers = ",".join(str(each.item) for each in more).encode()
        letters[-1] = msgspec.structs.replace(letters[-1], headers=(*letters[-1].headers, (MORE, numbers)))
    return letters


def _refuse(record: Record, partition: int, rejected: Rejected) -> Output:
    letter = dead_letter(
        record,
        topic=topics.EVENTS.name,
        partition=partition,
        item=rejected.item,
        reason=rejected.reason,
        field=rejected.field,
        detail=rejected.detail,
        at_ms=record.append_ms,
    )
    return msgspec.structs.replace(letter, headers=(*letter.headers, WHOLE)) if rejected.whole else letter
