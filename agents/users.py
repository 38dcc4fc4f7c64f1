"""The users agent: folds each mailbox partition; the only writer of user rows."""

from time import perf_counter
from typing import Final

from agents.definitions import Workspaces
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from agents.refusals import REFUSED_MAX, with_records
from config import metrics
from streams import topics
from streams.codec import pack
from streams.effects import Effect, Refused, SegmentChange
from streams.errors import BadState
from streams.fold import AHEAD_MAX_MS, Fold, Totals
from streams.mailbox import Switch, decode_letter
from streams.outputs import to_outputs
from streams.records import Output, Record
from streams.sends import Send
from tables.partition import PartitionState, UsersView

NAME: Final = "users"
EFFECTS_MAX: Final = 600
ROWS_MAX: Final = 300
"""A slice with more effects or changed rows is committed in parts: a batch is written in one piece, on the loop."""

_PIECE_EFFECTS: Final = 100
_WRITE_S: Final = 3e-6  # what one row or record adds to the time of a commit
_EVENT_TYPES: Final = {
    "custom_events": "event",
    "purchases": "purchase",
    "attributes": "attributes",
    "sessions": "session",
}


def _counts(totals: Totals) -> dict[str, int]:
    """The totals that metrics follow, as they stand."""
    return {name: getattr(totals, name) for name in (*_EVENT_TYPES, "duplicates", "refused", "timers")}


class Users:
    """The folds of the open partitions, and the agent that feeds them."""

    name = NAME
    reads = (topics.MAILBOX,)

    def __init__(self, engine: Engine, workspaces: Workspaces) -> None:
        self._engine = engine
        self._workspaces = workspaces
        self.states: dict[int, PartitionState] = {}
        self.folds: dict[int, Fold] = {}
        self._counted: dict[int, dict[str, int]] = {}

    async def open(self, partition: int) -> None:
        """Continue a partition's fold; one that never folded anything begins with the first workspace."""
        state = PartitionState(self._engine.store, partition)
        if state.position.next_offset == 0 and state.position.version < 0:
            state.position.version = self._workspaces.first_version
        if state.position.version > self._workspaces.latest_version:  # its former owner knew a newer one
            await self._workspaces.load()
        self.states[partition] = state
        self.folds[partition] = Fold(state, state.position, self._engine.settings.clock, self._workspaces.of)
        self._counted[partition] = _counts(state.position.totals)
        await self.switch()

    async def close(self, partition: int) -> None:
        """Forget a partition."""
        for kept in (self.states, self.folds, self._counted):
            kept.pop(partition, None)

    async def switch(self) -> None:
        """Tell open partitions to go over to the newest workspace; a repeated switch changes nothing."""
        latest = self._workspaces.latest_version
        behind = [at for at, fold in sorted(self.folds.items()) if fold.position.version < latest]
        if behind:
            value = pack(Switch(latest))
            await self._engine.transport.append([Output(topics.MAILBOX.name, at, None, value) for at in behind])

    def position(self, topic: str, partition: int) -> int:
        """The offset in the partition's own committed state."""
        return UsersView(self._engine.store).position(partition).next_offset

    async def rest(self) -> None:
        """Nothing is under way beside the slices."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def handle(self, piece: Slice) -> None:
        """Fold a slice and commit it."""
        began = perf_counter()
        for record in piece.records:
            await self._apply(piece.partition, record)
        await self._commit(piece.partition)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        age_ms = self._engine.clock.now_ms() - piece.records[0].append_ms
        metrics.EVENT_AGE_SECONDS.observe(max(0, age_ms) / 1000)
        metrics.SLICE_SECONDS.labels(NAME).observe(perf_counter() - began)
        self._engine.slices.finish(piece)

    async def _apply(self, partition: int, record: Record) -> None:
        """Fire what is due by the record's time, then apply it; a long run of either is committed in parts.

        A part is safe at any point: each timer moves the clock to its own due time, and the record is
        not counted as applied before it is.
        """
        fold = self.folds[partition]
        if record.append_ms > self._engine.clock.now_ms() + AHEAD_MAX_MS:
            raise BadState(
                f"mailbox[{partition}] offset {record.offset} was appended at {record.append_ms} ms, more than a "
                "minute ahead of this machine's clock; set the clock right, then start again"
            )
        letter = decode_letter(record.value)
        if isinstance(letter, Switch) and letter.version > self._workspaces.latest_version:
            await self._workspaces.load()
        now_ms = fold.time_of(letter, record.append_ms)
        while fold.fire_next(now_ms):
            await self._relieve(partition)
        fold.apply(record.key or b"", record.value, letter, now_ms)
        fold.position.next_offset = record.offset + 1
        await self._relieve(partition)

    async def _relieve(self, partition: int) -> None:
        """Let others work, and commit before a batch outgrows what the loop can write at once."""
        fold = self.folds[partition]
        refused = fold.position.totals.refused - self._counted[partition]["refused"]
        if len(fold.effects) >= EFFECTS_MAX or self.states[partition].changed >= ROWS_MAX or refused >= REFUSED_MAX:
            await self._commit(partition)
        await self._engine.pace.breathe()

    async def _commit(self, partition: int) -> None:
        """Rows, timers, position and outputs: whole or not at all."""
        pace, state = self._engine.pace, self.states[partition]
        effects = await with_records(self._engine.transport, self.folds[partition].take_effects())
        outputs: list[Output] = []
        for start in range(0, len(effects), _PIECE_EFFECTS):
            await pace.breathe()
            outputs += to_outputs(effects[start : start + _PIECE_EFFECTS], partition)
        batch = self._engine.transport.batch()
        for _ in state.stage_rows(batch):
            await pace.breathe()
        await pace.breathe((state.changed + len(outputs)) * _WRITE_S)
        state.stage_rest(batch)
        await self._engine.transport.commit(partition, batch, outputs)
        await pace.breathe()
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
