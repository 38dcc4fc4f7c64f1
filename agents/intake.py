"""Intake: the events topic into the mailboxes of users, bad records into dead-letters."""

from agents.engine.engine import Engine
from agents.engine.pace import Pace
from agents.engine.slices import Slice
from config import metrics
from streams import topics
from streams.intake import route
from streams.records import Output
from tables.positions import read_position, stage_position

NAME = "intake"


def register(engine: Engine) -> None:
    """Read `events`; each slice's letters, dead letters and new position are committed together."""
    topic_id = engine.transport.topic_id(topics.EVENTS.name)
    partitions, clock = engine.settings.partitions, engine.settings.clock

    async def handle(piece: Slice) -> None:
        outputs: list[Output] = []
        pace = Pace()
        for record in piece.records:
            outputs += route(record, topic_id, piece.partition, partitions, clock)
            await pace.breathe()
        batch = engine.transport.batch()
        stage_position(batch, NAME, piece.topic, piece.partition, piece.next_offset)
        await engine.transport.commit(batch, outputs)
        _measure(piece, outputs)
        engine.slices.finish(piece)

    def position(topic: str, partition: int) -> int:
        return read_position(engine.store, NAME, topic, partition)

    engine.agent(NAME, [topics.EVENTS], position, handle)


def _measure(piece: Slice, outputs: list[Output]) -> None:
    metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
    for output in outputs:
        if output.topic == topics.DEAD_LETTERS.name:
            metrics.DEAD_LETTERS.labels(dict(output.headers)["reason"].decode()).inc()
