"""What is carried from a folder of the embedded log to Kafka: the same records, in the same order, every time.

Internal topics are empty when the folder is drained, so only what is for others, and sends that no delivery agent
has read, is carried as records; state is carried as records of the changelog. Users go where their key belongs
among the new partitions.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from agents.delivery.agent import NAME as DELIVERY
from agents.move.report_cargo import moved_counters, moved_progress, remembered
from streams import topics
from streams.codec import partition_of
from streams.errors import BadState
from streams.fanouts import Planned
from streams.positions import Position, Totals
from streams.records import Output, Place, Record
from tables.changelog import Changelog
from tables.cursors import Cursors, read_cursors, stage_cursors
from tables.dispatches import Dispatch, Dispatches
from tables.log import Log
from tables.moved import arriving
from tables.partition import UsersView, stage_state_position
from tables.positions import read_position, read_refused, stage_refused
from tables.replayed import Replayed
from tables.reports import ReportsTable
from tables.restored import read_restored, stage_restored
from tables.store import Batch, Store

CHANGELOG: Final = "changelog"
OUTWARD: Final = (topics.SEGMENT_CHANGES, topics.CURRENTS, topics.DEAD_LETTERS)
TAKEN_AT_ONCE: Final = 256


class Cargo:
    """Reads a drained folder; `scratch` is an empty store, in which nothing is ever written."""

    def __init__(self, store: Store, log: Log, old: int, new: int, scratch: Store) -> None:
        """From `old` partitions to `new` ones."""
        self._store = store
        self._log = log
        self._old = old
        self._new = new
        self._scratch = scratch
        self._view = UsersView(store)
        self._written: Counter[Place] = Counter()
        self.users: Counter[int] = Counter()
        self.dispatches = 0

    def marks(self, move_id: bytes) -> Iterator[Output]:
        """The first records of all, and with nothing for an id the last: whether state has wholly arrived."""
        for partition in range(self._new):
            yield Output(CHANGELOG, partition, b"m" + arriving(partition), move_id)

    def records(self) -> Iterator[Output]:
        """Everything between the marks, in order."""
        yield from self._definitions()
        for record in self._read(topics.KEYS.name, 0, 0):
            yield self._output(topics.KEYS.name, 0, record)
        yield from self._outward()
        yield from self._sends()
        yield from self._rows()
        yield from self._dispatches()
        yield from self._reports()
        yield from self._meta()

    def _target(self, user: bytes | None, partition: int) -> int:
        """Where a user's records go; records of nobody stay as near as they can."""
        if self._old == self._new or user is None:
            return partition % self._new
        return partition_of(user, self._new)

    def _read(self, topic: str, partition: int, offset: int) -> Iterator[Record]:
        while records := self._log.read(topic, partition, offset):
            yield from records
            offset = records[-1].offset + 1

    def _output(self, topic: str, partition: int, record: Record) -> Output:
        self._written[topic, partition] += 1
        return Output(topic, partition, record.key, record.value, record.headers)

    def _definitions(self) -> Iterator[Output]:
        """All of them, since a version is its offset: the topic is kept for ever, and begins at 0."""
        if self._log.start(topics.DEFINITIONS.name, 0) != 0:
            raise BadState("the definitions topic does not begin at offset 0, so versions cannot be kept")
        for record in self._read(topics.DEFINITIONS.name, 0, 0):
            yield self._output(topics.DEFINITIONS.name, 0, record)

    def _outward(self) -> Iterator[Output]:
        """What others read, as far as retention has left it, and which dead letters were replayed."""
        for topic in OUTWARD:
            for partition in range(self._old):
                marks = Replayed(self._store, partition)
                for record in self._read(topic.name, partition, self._log.start(topic.name, partition)):
                    key = None if topic is topics.DEAD_LETTERS else record.key
                    target = self._target(key, partition)
                    offset = self._written[topic.name, target]
                    yield self._output(topic.name, target, record)
                    if topic is topics.DEAD_LETTERS:
                        for at_ms in marks.between(record.offset, record.offset + 1).values():
                            batch = self._batch()
                            Replayed(self._scratch, target).stage(batch, offset, at_ms)
                            yield from self._changes(target, batch)

    def _sends(self) -> Iterator[Output]:
        """Decided, and not recorded by the delivery agent; it starts at offset 0 of the new topics."""
        for topic in topics.SENDS.values():
            for partition in range(self._old):
                for record in self._read(
                    topic.name, partition, read_position(self._store, DELIVERY, topic.name, partition)
                ):
                    yield self._output(topic.name, self._target(record.key, partition), record)

    def _rows(self) -> Iterator[Output]:
        for partition in range(self._old):
            for user, row in self._view.raw(partition):
                target = self._target(user.encode(), partition)
                self.users[target] += 1
                yield Output(CHANGELOG, target, b"u" + target.to_bytes(2, "big") + user.encode(), row)

    # ---- dispatches

    def _dispatches(self) -> Iterator[Output]:
        """Each in its state; those that wait keep their order, partition by partition."""
        tables = [Dispatches(self._scratch, partition) for partition in range(self._new)]
        counts: Counter[tuple[str, str]] = Counter()
        for partition in range(self._old):
            for dispatch in self._in_order(partition):
                self.dispatches += 1
                counts[dispatch.campaign, dispatch.state] += 1
                target = self._target(dispatch.user.encode(), partition)
                yield from self._changes(target, self._moved(tables[target], dispatch))
            self._add_forgotten(tables[partition % self._new], partition, counts)
            counts.clear()
        for target, table in enumerate(tables):
            batch = self._batch()
            table.stage_tally(batch)
            yield from self._changes(target, batch)

    def _in_order(self, partition: int) -> Iterator[Dispatch]:
        table = Dispatches(self._store, partition)
        for _ in table.load():
            pass
        yield from (dispatch for dispatch in table.all() if dispatch.state != "pending")
        for channel, lane in topics.SENDS:
            while taken := table.take(channel, lane, lambda name: TAKEN_AT_ONCE, TAKEN_AT_ONCE):
                yield from taken

    def _moved(self, table: Dispatches, dispatch: Dispatch) -> Batch:
        batch, state = self._batch(), dispatch.state
        dispatch.state = "new"
        table.move(batch, dispatch, state, dispatch.updated_ms, dispatch.due_ms)
        table.publish()
        return batch

    def _add_forgotten(self, table: Dispatches, partition: int, found: Counter[tuple[str, str]]) -> None:
        """Counts are of all dispatches ever: those that are gone stay counted."""
        for campaign, by_state in Dispatches(self._store, partition).counts.items():
            for state, count in by_state.items():
                counts = table.counts.setdefault(campaign, {})
                counts[state] = counts.get(state, 0) + count - found[campaign, state]

    def _reports(self) -> Iterator[Output]:
        for target in range(self._new):
            table, batch = ReportsTable(self._scratch, target), self._batch()
            moved_counters(self._store, table, [at for at in range(self._old) if at % self._new == target])
            table.stage(batch)
            yield from self._changes(target, batch)
        every = list(range(self._new))
        for source in range(self._old):
            targets = [source] if self._old == self._new else every
            for target, key, value in remembered(self._store, source, targets):
                yield Output(CHANGELOG, target, b"r" + key, value)

    # ---- positions

    def _meta(self) -> Iterator[Output]:
        positions = [self._view.position(partition) for partition in range(self._old)]
        ends = [self._log.end(topics.CURRENTS.name, partition) for partition in range(self._old)]
        starts = [self._log.start(topics.CURRENTS.name, partition) for partition in range(self._old)]
        shift = max(ends) if self._old != self._new or any(starts) else 0
        cursors = [read_cursors(self._store, partition) for partition in range(self._old)]
        restored = read_restored(self._store, 0)  # the folder's
        for target in range(self._new):
            batch = self._batch()
            if restored is not None:  # timers of the lost time may still be to come
                stage_restored(batch, restored, target)
            sources = [at for at in range(self._old) if at % self._new == target]
            every = sources if self._old == self._new else range(self._old)
            stage_state_position(batch, target, self._position([positions[at] for at in every], target, positions))
            if any(each.files for each in cursors):
                stage_cursors(batch, target, self._cursors([cursors[at] for at in sources], target, shift))
            end = self._written[topics.CURRENTS.name, target]
            moved_progress(self._store, self._old, batch, target, end)
            stage_refused(batch, target, sum(read_refused(self._store, at) for at in sources))
            yield from self._changes(target, batch)

    def _position(self, merged: list[Position], target: int, every: list[Position]) -> Position:
        """An empty mailbox at the latest of the clocks, since a row is never decided at a time below its last.

        No letter is under way, so no cause has to be remembered: those to come bear the new topic's id.
        """
        versions = {each.version for each in merged if each.version >= 0}  # nothing ever came to the others
        if any(each.open_scan is not None for each in merged) or len(versions) > 1:
            raise BadState("partitions are at different versions of the workspace; the folder is not drained")
        is_same = self._old == self._new
        if not is_same and any(each.fanouts for each in merged):
            raise BadState("a campaign is paused amid a fan-out, which belongs to its partitions: resume or cancel it")
        totals = [each.totals for at, each in enumerate(every) if at % self._new == target]
        return Position(
            clock_ms=max(each.clock_ms for each in merged),
            version=max(versions, default=-1),
            built=max(each.built for each in merged),
            totals=_sum(totals, self.users[target]),
            fanned=max(each.fanned for each in merged),
            fanouts=merged[0].fanouts if is_same else [],
            plans=merged[0].plans if is_same else _plans(merged),
        )

    def _cursors(self, own: list[Cursors], target: int, shift: int) -> Cursors:
        """All that is carried lies in files already. Names go on behind those of the old offsets."""
        end = self._written[topics.CURRENTS.name, target]
        files, rows = sum(each.files for each in own), sum(each.rows for each in own)
        return Cursors({}, end, files, rows, max([shift, *(each.shift for each in own)]))

    # ---- writing

    def _batch(self) -> Batch:
        return self._scratch.batch(recording=True)

    def _changes(self, partition: int, batch: Batch) -> Iterator[Output]:
        for key, value, _ in Changelog(self._scratch, partition).rows(batch.changes):
            if value is not None:  # nothing was there to be deleted
                yield Output(CHANGELOG, partition, key or b"", value)


def _plans(merged: list[Position]) -> dict[str, Planned]:
    """Where each campaign's plan stands in the partition that is furthest; nothing of it is under way."""
    plans: dict[str, Planned] = {}
    for each in merged:
        for name, planned in each.plans.items():
            if name not in plans or planned.local_ms > plans[name].local_ms:
                plans[name] = msgspec.structs.replace(planned, last=None)
    return plans


def _sum(parts: list[Totals], users: int) -> Totals:
    """Totals of several partitions as one, but for the users, who are counted where they are."""
    total = Totals()
    for part in parts:
        for name, value in msgspec.structs.asdict(part).items():
            known = getattr(total, name)
            if isinstance(value, dict):
                for key, amount in value.items():
                    known[key] = known.get(key, 0) + amount
            else:
                setattr(total, name, known + value)
    total.users = users
    return total
