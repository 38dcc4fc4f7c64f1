"""The users agent: folds each mailbox partition; the only writer of user rows."""

from collections.abc import Callable
from time import perf_counter
from typing import Final

from agents.engine.engine import Engine
from agents.engine.pace import Pace
from agents.engine.slices import Slice
from config import metrics
from streams import topics
from streams.effects import Effect, Refused, SegmentChange
from streams.errors import BadState
from streams.fold import AHEAD_MAX_MS, Fold, Totals
from streams.mailbox import decode_letter
from streams.outputs import to_outputs
from streams.records import Record
from streams.sends import Send
from streams.workspace import Workspace
from tables.partition import PartitionState, UsersView

NAME: Final = "users"
EFFECTS_MAX: Final = 4_000
ROWS_MAX: Final = 2_000
_EVENT_TYPES: Final = {
    "custom_events": "event",
    "purchases": "purchase",
    "attributes": "attributes",
    "sessions": "session",
}


def _counts(totals: Totals) -> dict[str, int]:
    """The totals that metrics follow, as they stand."""
    return {name: getattr(totals, name) for name in (*_EVENT_TYPES, "duplicates", "timers")}


class Users:
    """The partitions' states and folds."""

    def __init__(self, engine: Engine, workspace_of: Callable[[int], Workspace]) -> None:
        self._engine = engine
        partitions = range(engine.settings.partitions)
        self.states = [PartitionState(engine.store, partition) for partition in partitions]
        clock = engine.settings.clock
        self.folds = [Fold(state, state.position, clock, workspace_of) for state in self.states]
        self._counted = [_counts(state.position.totals) for state in self.states]

    def register(self) -> None:
        """Read `mailbox`, each partition from the offset in its own state."""

        def position(topic: str, partition: int) -> int:
            return UsersView(self._engine.store).position(partition).next_offset

        self._engine.agent(NAME, [topics.MAILBOX], position, self._handle)

    async def _handle(self, piece: Slice) -> None:
        began = perf_counter()
        state = self.states[piece.partition]
        state.load(record.key.decode() for record in piece.records if record.key is not None)
        pace = Pace()
        for record in piece.records:
            await self._apply(piece.partition, record, pace)
        await self._commit(piece.partition)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        age_ms = self._engine.clock.now_ms() - piece.records[0].append_ms
        metrics.EVENT_AGE_SECONDS.observe(max(0, age_ms) / 1000)
        metrics.SLICE_SECONDS.labels(NAME).observe(perf_counter() - began)
        self._engine.slices.finish(piece)

    async def _apply(self, partition: int, record: Record, pace: Pace) -> None:
        """Fire what is due by the record's time, then apply it; a long run of timers is committed in parts.

        A part is safe at any point: each timer moves the clock to its own due time, and the record is
        not counted as applied before it is.
        """
        fold, state = self.folds[partition], self.states[partition]
        if record.append_ms > self._engine.clock.now_ms() + AHEAD_MAX_MS:
            raise BadState(
                f"mailbox[{partition}] offset {record.offset} was appended at {record.append_ms} ms, more than a "
                "minute ahead of this machine's clock; set the clock right, then start again"
            )
        letter = decode_letter(record.value)
        now_ms = fold.time_of(letter, record.append_ms)
        while fold.fire_next(now_ms):
            if len(fold.effects) >= EFFECTS_MAX or state.changed >= ROWS_MAX:
                await self._commit(partition)
            await pace.breathe()
        fold.apply(record.key or b"", record.value, letter, now_ms)
        fold.position.next_offset = record.offset + 1
        await pace.breathe()

    async def _commit(self, partition: int) -> None:
        """Rows, timers, position and outputs: whole or not at all."""
        effects = self.folds[partition].take_effects()
        outputs = to_outputs(effects, partition)
        batch = self._engine.transport.batch()
        self.states[partition].stage(batch)
        await self._engine.transport.commit(batch, outputs)
        self._measure(partition, effects)

    def _measure(self, partition: int, effects: list[Effect]) -> None:
        """Count what a commit has made true, so that a crashed attempt counts nothing."""
        for effect in effects:
            if isinstance(effect, SegmentChange):
                metrics.SEGMENT_CHANGES.labels("enter" if effect.entered else "leave").inc()
            elif isinstance(effect, Send):
                metrics.SENDS_DECIDED.labels(effect.channel).inc()
            elif isinstance(effect, Refused):
                metrics.DEAD_LETTERS.labels(effect.reason).inc()
        totals, counted = self.folds[partition].position.totals, self._counted[partition]
        for name, kind in _EVENT_TYPES.items():
            metrics.EVENTS_APPLIED.labels(kind).inc(getattr(totals, name) - counted.get(name, 0))
        metrics.EVENTS_DUPLICATE.inc(totals.duplicates - counted.get("duplicates", 0))
        metrics.TIMERS_FIRED.inc(totals.timers - counted.get("timers", 0))
        self._counted[partition] = _counts(totals)
