"""Refusals of the fold: the record that a letter was made of, read again for its dead letter."""

from typing import Final

from msgspec.structs import replace

from agents.engine.transport import Transport
from streams import topics
from streams.effects import Effect, Refused
from streams.mailbox import Cause
from streams.records import Record

REFUSED_MAX: Final = 16
"""Refusals in one commit: each carries a record of up to 4 MiB."""


async def with_records(transport: Transport, effects: list[Effect]) -> list[Effect]:
    """The effects, each refusal with its record; without, where retention has dropped it."""
    found: dict[tuple[str, int, int], Record | None] = {}
    for at, effect in enumerate(effects):
        if not isinstance(effect, Refused):
            continue
        cause = effect.cause
        place = (cause.topic_id, cause.partition, cause.offset)
        if place not in found:
            found[place] = await _record_of(transport, cause)
        effects[at] = replace(effect, record=found[place])
    return effects


async def _record_of(transport: Transport, cause: Cause) -> Record | None:
    """The record at a cause's place, if the events topic is still the same and still holds it."""
    if cause.topic_id != transport.topic_id(topics.EVENTS.name):
        return None
    records = await transport.look(topics.EVENTS.name, cause.partition, cause.offset, 1)
    return records[0] if records and records[0].offset == cause.offset else None
