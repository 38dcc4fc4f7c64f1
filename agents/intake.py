"""Intake: the events topic into the mailboxes of users, bad records into dead-letters."""

from typing import Final

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from config import metrics
from streams import topics
from streams.engagement import SigningKeys
from streams.intake import route
from streams.records import Output
from tables.positions import read_position, read_refused, stage_position, stage_refused

NAME: Final = "intake"
REFUSED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of dead letters in a commit, and those of one record more."""


class Intake:
    """Turns each slice of `events` into letters and dead letters."""

    name = NAME
    reads = (topics.EVENTS,)

    def __init__(self, engine: Engine, keys: SigningKeys = ()) -> None:
        """`keys` are those that engagements have to be signed by."""
        self._engine = engine
        self._keys = keys

    async def open(self, partition: int) -> None:
        """Nothing is kept in memory."""

    async def close(self, partition: int) -> None:
        """Nothing to forget."""

    def position(self, topic: str, partition: int) -> int:
        """The next offset, as last kept."""
        return read_position(self._engine.store, NAME, topic, partition)

    async def rest(self) -> None:
        """Nothing is under way beside the slices."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Holes behind the last record."""
        batch = self._engine.transport.batch()
        stage_position(batch, NAME, topic, partition, finished)
        await self._engine.transport.commit(partition, batch, [])

    async def handle(self, piece: Slice) -> None:
        """Route a slice. Letters may be appended twice by a crash; dead letters and their count may not."""
        settings, pace = self._engine.settings, self._engine.pace
        topic_id = self._engine.transport.topic_id(piece.topic)
        outputs: list[Output] = []
        refused_bytes = 0
        for record in piece.records:
            routed = route(record, topic_id, piece.partition, settings.partitions, settings.clock, self._keys)
            outputs += routed
            refused_bytes += sum([len(each.value) for each in routed if each.topic == topics.DEAD_LETTERS.name])
            if refused_bytes >= REFUSED_BYTES_MAX:
                await self._commit(piece, outputs, record.offset + 1)
                outputs, refused_bytes = [], 0
            if pace.spent:
                await pace.rest()
        await self._commit(piece, outputs, piece.next_offset)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        self._engine.slices.finish(piece)

    async def _commit(self, piece: Slice, outputs: list[Output], next_offset: int) -> None:
        """Append what a part of a slice has given, and keep the position behind it."""
        refused = [output for output in outputs if output.topic == topics.DEAD_LETTERS.name]
        transport = self._engine.transport
        batch = transport.batch()
        await self._engine.pace.rest()
        stage_position(batch, NAME, piece.topic, piece.partition, next_offset)
        if refused:
            stage_refused(batch, piece.partition, read_refused(self._engine.store, piece.partition) + len(refused))
            await transport.commit(piece.partition, batch, outputs)
        else:
            await transport.forward(piece.partition, batch, outputs)
        for output in refused:
            metrics.DEAD_LETTERS.labels(dict(output.headers)["reason"].decode()).inc()
