"""The users agent: folds each mailbox partition; the only writer of user rows."""

from collections import Counter
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
from streams.errors import BadState, Revoked
from streams.fold import AHEAD_MAX_MS, Fold
from streams.mailbox import FanStep, Letter, MergePart, Step, Switch, decode_letter
from streams.outputs import to_outputs
from streams.positions import Totals
from streams.records import Output, Record
from streams.sends import Send
from tables.memory import rows_bytes
from tables.moved import refuse_arriving
from tables.partition import PartitionState, UsersView

NAME: Final = "users"
EFFECTS_MAX: Final = 2_400
ROWS_MAX: Final = 600
"""A slice with more effects or changed rows is committed in parts: a batch is written in one piece, on the loop."""

KAFKA_TIMES: Final = 2
"""On Kafka it may have so many times the effects, which go to the brokers piece by piece: fewer commits, each of which
waits for a transaction, and a row that many events change is written less often."""

POSTED_BYTES_MAX: Final = 1024 * 1024
"""Of rows that go to other users in one commit, the last of them aside."""

TURNS_MAX: Final = 64
"""Switches that rows not decided by an open scan may have to catch up with."""

_PIECE_EFFECTS: Final = 100
_WRITE_S: Final = 3e-6  # what one row or record adds to the time of a commit
_EVENT_TYPES: Final = {
    "custom_events": "event",
    "purchases": "purchase",
    "attributes": "attributes",
    "sessions": "session",
    "engagements": "engagement",
}
_LIMITS: Final = {
    "merge_values_left_out": "merge_row",
    "merges_split": "merge_part_bytes",
    "links_forgotten": "user_devices",
    "missed": "fanouts_open",
}
_MEASURED: Final = ("duplicates", "refused", "timers", "merged", "forwarded", *_LIMITS)


def _counts(totals: Totals) -> dict[str, int]:
    """The totals that metrics follow, as they stand."""
    return {name: getattr(totals, name) for name in (*_EVENT_TYPES, *_MEASURED)}


def _count_effects(effects: list[Effect]) -> None:
    """Let the metrics follow effects, each metric told once."""
    changes, sends, refused = Counter[str](), Counter[str](), Counter[str]()
    for effect in effects:
        if isinstance(effect, SegmentChange):
            changes["enter" if effect.entered else "leave"] += 1
        elif isinstance(effect, Send):
            sends[effect.channel] += 1
        elif isinstance(effect, Refused):
            refused[effect.reason] += 1
    told = ((metrics.SEGMENT_CHANGES, changes), (metrics.SENDS_DECIDED, sends), (metrics.DEAD_LETTERS, refused))
    for metric, counts in told:
        for label, count in counts.items():
            metric.labels(label).inc(count)


class Users:
    """The folds of the open partitions, and the agent that feeds them."""

    name = NAME
    reads = (topics.MAILBOX,)

    def __init__(self, engine: Engine, workspaces: Workspaces) -> None:
        self._engine = engine
        self._workspaces = workspaces
        self._times = KAFKA_TIMES if engine.settings.on_kafka else 1
        self.states: dict[int, PartitionState] = {}
        self.folds: dict[int, Fold] = {}
        self._counted: dict[int, dict[str, int]] = {}

    async def open(self, partition: int) -> None:
        """Continue a partition's fold; one that never folded anything begins with the first workspace."""
        refuse_arriving(self._engine.store, partition)
        settings = self._engine.settings
        recent_bytes = rows_bytes(settings.memory_bytes, settings.partitions)
        state = PartitionState(self._engine.store, partition, recent_bytes)
        if state.position.next_offset == 0 and state.position.version < 0:
            state.position.version = self._workspaces.first_version
        if state.position.version > self._workspaces.latest_version:  # its former owner knew a newer one
            await self._workspaces.load()
        self.states[partition] = state
        place = (partition, settings.partitions)
        self.folds[partition] = Fold(state, state.position, settings.clock, self._workspaces.of, place)
        self._counted[partition] = _counts(state.position.totals)
        await self.switch()

    async def close(self, partition: int) -> None:
        """Forget a partition."""
        for kept in (self.states, self.folds, self._counted):
            kept.pop(partition, None)

    async def switch(self) -> None:
        """Tell open partitions to go over to the newest workspace; a repeated switch changes nothing.

        One whose scan has many switches to catch up with goes over when the scan has ended.
        """
        latest = self._workspaces.latest_version
        behind = []
        for at, fold in sorted(self.folds.items()):
            scan = fold.position.open_scan
            if fold.position.version < latest and (scan is None or len(scan.turns) < TURNS_MAX):
                behind.append(at)
        if behind:
            value = pack(Switch(latest))
            await self._engine.transport.append([Output(topics.MAILBOX.name, at, None, value) for at in behind])

    @property
    def is_building(self) -> bool:
        """Whether a partition of this process has a scan or a fan-out that goes on, or knows of a newer workspace."""
        latest = self._workspaces.latest_version
        positions = [fold.position for fold in self.folds.values()]
        if any(each.open_scan is not None or each.version < latest for each in positions):
            return True
        return any(fold.fanning.is_sending for fold in self.folds.values())

    def position(self, topic: str, partition: int) -> int:
        """The offset in the partition's own committed state."""
        return UsersView(self._engine.store).position(partition).next_offset

    async def rest(self) -> None:
        """Nothing is under way beside the slices."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Holes behind the last letter; a fold that has had none yet knows that by its position."""
        fold = self.folds[partition]
        if 0 < fold.position.next_offset < finished:
            fold.position.next_offset = finished
            await self._commit(partition)

    async def handle(self, piece: Slice) -> None:
        """Fold a slice and commit it."""
        began, fold = perf_counter(), self.folds[piece.partition]
        at = 0
        while at < len(piece.records):
            since, at = at, self._fold(piece.partition, piece.records, at)
            if at < len(piece.records):
                await self._relieve(piece.partition, piece.records[at], was_begun=at == since)
                if self.folds.get(piece.partition) is not fold:
                    raise Revoked(f"mailbox[{piece.partition}] was given up while a slice of it waited")
        await self._commit(piece.partition)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        age_ms = self._engine.clock.now_ms() - piece.records[0].append_ms
        metrics.EVENT_AGE_SECONDS.observe(max(0, age_ms) / 1000)
        metrics.SLICE_SECONDS.labels(NAME).observe(perf_counter() - began)
        self._engine.slices.finish(piece)

    def _fold(self, partition: int, records: list[Record], at: int) -> int:
        """Apply records from index `at` on until something needs an await; returns the index that comes next.

        Before each, what is due by its time fires. A stop is safe at any point, between timers too: each
        moves the clock to its own due time, and the record is not counted as applied before it is. What events
        have given is not kept waiting for a scan's step behind them.
        """
        fold, pace = self.folds[partition], self._engine.pace
        latest_ms = self._engine.clock.now_ms() + AHEAD_MAX_MS
        for index in range(at, len(records)):
            record = records[index]
            if record.append_ms > latest_ms:
                raise BadState(
                    f"mailbox[{partition}] offset {record.offset} was appended at {record.append_ms} ms, more than a "
                    "minute ahead of this machine's clock; set the clock right, then start again"
                )
            letter = decode_letter(record.value)
            if self._needs_workspace(letter):
                return index
            if isinstance(letter, (Step, FanStep)) and index > at and fold.effects:
                return index
            now_ms = fold.time_of(letter, record.append_ms)
            while fold.fire_next(now_ms) or (isinstance(letter, (Step, FanStep)) and fold.step_next(letter, now_ms)):
                if pace.spent or self._is_full(partition):
                    return index
            fold.position.next_offset = record.offset  # Kafka's offsets have holes, and a switch notes its own
            fold.apply(record.key or b"", record.value, letter, now_ms)
            fold.position.next_offset = record.offset + 1
            if pace.spent or self._is_full(partition):
                return index + 1
        return len(records)

    def _is_full(self, partition: int) -> bool:
        """Whether a batch of what is not committed yet is as large as the loop can write at once."""
        fold = self.folds[partition]
        if len(fold.effects) >= EFFECTS_MAX * self._times or self.states[partition].changed >= ROWS_MAX:
            return True
        if fold.relations.posted_bytes >= POSTED_BYTES_MAX:
            return True
        return fold.position.totals.refused - self._counted[partition]["refused"] >= REFUSED_MAX

    def _needs_workspace(self, letter: Letter) -> bool:
        """Whether a letter is about a version that this process has not read; others may have gone over to it."""
        return isinstance(letter, (Switch, MergePart)) and letter.version > self._workspaces.latest_version

    async def _relieve(self, partition: int, coming: Record, *, was_begun: bool) -> None:
        """Commit what fills a batch, or comes before a step, load a workspace that is needed, and let others work."""
        letter = decode_letter(coming.value)
        is_step = isinstance(letter, (Step, FanStep))
        if self._is_full(partition) or (is_step and not was_begun and self.folds[partition].effects):
            await self._commit(partition)
        if self._needs_workspace(letter):
            await self._workspaces.load()
        await self._engine.pace.breathe()

    async def _commit(self, partition: int) -> None:
        """Rows, timers, position and outputs: whole or not at all."""
        pace, state, partitions = self._engine.pace, self.states[partition], self._engine.settings.partitions
        effects = await with_records(self._engine.transport, self.folds[partition].take_effects())
        outputs: list[Output] = []
        for start in range(0, len(effects), _PIECE_EFFECTS):
            await pace.breathe()
            outputs += to_outputs(effects[start : start + _PIECE_EFFECTS], partition, partitions)
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
        _count_effects(effects)
        if partition not in self.folds:  # it was given up meanwhile
            return
        totals, counted = self.folds[partition].position.totals, self._counted[partition]
        for name, kind in _EVENT_TYPES.items():
            metrics.EVENTS_APPLIED.labels(kind).inc(getattr(totals, name) - counted.get(name, 0))
        metrics.EVENTS_DUPLICATE.inc(totals.duplicates - counted.get("duplicates", 0))
        metrics.TIMERS_FIRED.inc(totals.timers - counted.get("timers", 0))
        if totals.merged + totals.forwarded != counted.get("merged", 0) + counted.get("forwarded", 0):
            metrics.USERS_MERGED.inc(totals.merged - counted.get("merged", 0))
            metrics.LETTERS_FORWARDED.inc(totals.forwarded - counted.get("forwarded", 0))
        for name, limit in _LIMITS.items():
            if hits := getattr(totals, name) - counted.get(name, 0):
                metrics.LIMIT_HITS.labels(limit).inc(hits)
        self._counted[partition] = _counts(totals)
