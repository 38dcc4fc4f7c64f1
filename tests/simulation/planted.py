"""Planted bugs: each breaks one law of the product, and a simulation that does not find it is blind there.

A plant gives what to put in the place of what, for the length of a run. Where a bug differs from process to
process, as the order of a set does, the number of the simulated process's life stands for the hash seed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from msgspec.structs import replace

from agents import intake
from agents.delivery import agent, outcomes
from agents.delivery.agent import Delivery
from agents.delivery.permits import Permits
from agents.delivery.writer import Writer
from agents.engine.embedded import EmbeddedTransport
from agents.engine.slices import Slice, Slices
from agents.export import Export
from agents.users import Users
from agents.web.dead_letters import DeadLetters
from channels.channel import Receipt, Request
from channels.outbox import Outbox
from channels.smtp import Smtp
from streams import identity, ids, users
from streams.campaigns import enter
from streams.campaigns.trigger import Campaign
from streams.fanning import Fanning
from streams.fanouts import FanOut
from streams.fold import Fold
from streams.intake import route
from streams.profiles.row import User
from streams.records import Output
from streams.replays import replays_of
from streams.segments import membership
from streams.workspace import Workspace
from tables.dispatches import Dispatch, Dispatches
from tables.replayed import Replayed
from tests.simulation.disk import MemoryBatch
from tests.simulation.loop import Process

Replacements = list[tuple[object, str, object]]


def _life() -> str:
    process = Process.current()
    return process.name if process is not None else ""


def _nothing(*args: object) -> None:
    """Instead of what the bug forgets."""


def outcome_before_state() -> Replacements:
    """The outcome of a dispatch is told before its state is durable."""

    async def commit(self: Writer, batch: MemoryBatch, outputs: list[Output]) -> None:
        if outputs:
            await self._transport.commit(self._partition, self._transport.batch(), outputs)
            await asyncio.sleep(0.01)
        await self._transport.commit(self._partition, batch, [])

    return [(Writer, "_commit", commit)]


def attempt_before_record() -> Replacements:
    """A dispatch is attempted, and recorded as attempting afterwards."""
    real = Delivery._begin

    async def begin(self: Delivery, partition: int, taken: list[Dispatch]) -> None:
        for dispatch in taken:
            request = Request(dispatch.dispatch_id, dispatch.address, dispatch.request)
            await self._providers[dispatch.channel].attempt(request)
        await real(self, partition, taken)

    return [(Delivery, "_begin", begin)]


def record_not_synced() -> Replacements:
    """The log is not synced before a dispatch is attempted, or a file is linked."""

    async def sync(self: EmbeddedTransport, patience_s: float = 0.0) -> None:
        await asyncio.sleep(0)

    return [(EmbeddedTransport, "sync", sync)]


def accidental_dispatch_id() -> Replacements:
    """A dispatch id depends on which process decided it."""
    real = ids.dispatch_id

    def dispatch_id(campaign: str, external_id: str, incarnation: int, entry: int) -> str:
        return real(campaign + _life(), external_id, incarnation, entry)

    return [(ids, "dispatch_id", dispatch_id)]


def position_not_stored() -> Replacements:
    """Intake does not keep how far it has read."""
    return [(intake, "stage_position", _nothing)]


def row_without_offset() -> Replacements:
    """Rows are written in one batch and the offset that they stand for in the next."""

    async def commit(self: EmbeddedTransport, partition: int, batch: MemoryBatch, outputs: Sequence[Output]) -> None:
        later = [op for op in batch.ops if op[2].startswith(b"position\0")]
        batch.ops = [op for op in batch.ops if op not in later]
        if outputs:
            self._log.stage(batch, outputs, self._clock.now_ms())
        self._store.write(batch)
        if later:
            second = self._store.batch()
            second.ops = later  # type: ignore[attr-defined]
            self._store.write(second)
        if outputs:
            self._log.publish()

    return [(EmbeddedTransport, "commit", commit)]


def outputs_without_state() -> Replacements:
    """Outputs are written in one batch and the state that decided them in the next."""
    real = EmbeddedTransport.commit

    async def commit(self: EmbeddedTransport, partition: int, batch: MemoryBatch, outputs: Sequence[Output]) -> None:
        await real(self, partition, self.batch(), outputs)
        await real(self, partition, batch, [])

    return [(EmbeddedTransport, "commit", commit)]


def watermark_early() -> Replacements:
    """A slice counts as finished when it is taken."""
    real = Slices.take

    def take(self: Slices, place: tuple[str, int]) -> Slice | None:
        piece = real(self, place)
        if piece is not None:
            feed = self._feeds[place]
            feed.finished = dict.fromkeys(feed.finished, piece.next_offset)
        return piece

    return [(Slices, "take", take)]


def export_cursor_early() -> Replacements:
    """The cursor of an export is kept before its file is there."""
    real = Export._write

    async def write(self: Export, partition: int, event_type: str) -> None:
        held = self._partitions.get(partition)
        pending = held.pending.get(event_type) if held else None
        if held is not None and pending is not None and pending.values:
            before = held.cursors.last.get(event_type)
            held.cursors.last[event_type] = pending.values[-1][0]
            waiting = held.pending.pop(event_type)
            await self._advance(partition, held)
            held.pending[event_type] = waiting
            if before is None:
                del held.cursors.last[event_type]
            else:
                held.cursors.last[event_type] = before
        await real(self, partition, event_type)

    return [(Export, "_write", write)]


def set_order() -> Replacements:
    """Campaigns that start together come in the order of their hashes."""
    real = enter.started

    def started(*args: Any) -> list[Campaign]:
        return sorted(real(*args), key=lambda each: blake2b((each.name + _life()).encode()).digest())

    return [(users, "started", started)]


def consent_not_read_again() -> Replacements:
    """Pause and consent are read when a send is recorded, and not again before the attempt."""
    real = Permits.refusal

    def refusal(self: Permits, *args: Any) -> str:
        return "" if sys._getframe(1).f_code.co_name == "_carry" else real(self, *args)

    return [(Permits, "refusal", refusal)]


def rendered_again() -> Replacements:
    """A repeated attempt goes out with other bytes than the first."""
    real = Delivery._attempting

    def attempting(self: Delivery, table: Dispatches, dispatch: Dispatch, batch: Any) -> None:
        if dispatch.attempts:
            dispatch.request = dispatch.request.replace(b'"body":"', b'"body":" ')
        real(self, table, dispatch, batch)

    return [(Delivery, "_attempting", attempting)]


def causes_not_kept() -> Replacements:
    """A letter that a repeated intake appended again is applied again."""
    return [(Fold, "_is_above", lambda self, cause: True)]


def timer_late() -> Replacements:
    """A timer is armed a third of a second too late."""
    real = membership.next_change

    def next_change(*args: Any) -> int | None:
        found = real(*args)
        return None if found is None else found + 333

    return [(users, "next_change", next_change)]


def timer_not_armed_again() -> Replacements:
    """A timer that fires arms none for what is still to come."""
    real = users.decide_timer

    def decide(user: User, user_key: str, now_ms: int, workspace: Workspace) -> users.Effects:
        effects = real(user, user_key, now_ms, workspace)
        user.timer_ms = None
        return effects

    return [(users, "decide_timer", decide)]


def dead_letter_dropped() -> Replacements:
    """Bad objects among good ones are dropped without a dead letter."""

    def routed(*args: Any) -> list[Output]:
        outputs = route(*args)
        good = [output for output in outputs if output.topic == "mailbox"]
        return good or outputs

    return [(intake, "route", routed)]


def id_forgotten() -> Replacements:
    """The id of an event that was applied is not remembered."""
    return [(users, "seen_before", lambda user, event_id, now_ms: False)]


def mail_sent_again() -> Replacements:
    """A mail whose answer a crash has swallowed is sent again."""

    async def settle(self: Smtp, requests: list[Request]) -> list[Receipt]:
        return [Receipt(request.dispatch_id, "retry") for request in requests]

    return [(Smtp, "settle", settle)]


def outbox_not_looked_into() -> Replacements:
    """After a crash the outbox appends what was being attempted, whether its file holds it or not."""
    real = Outbox._append

    def append(self: Outbox, requests: list[Request], since: int, *, check: bool) -> None:
        self._size = self.path.stat().st_size
        real(self, requests, self._size, check=False)

    return [(Outbox, "_append", append)]


def replay_before_its_mark() -> Replacements:
    """A dead letter is put back in one commit and marked so in the next."""

    async def put_back(self: DeadLetters, partition: int, chosen: list[Any], counts: dict[str, int]) -> None:
        if not chosen:
            return
        await self._transport.append(replays_of([letter for _, letter in chosen]))
        await asyncio.sleep(0.2)
        batch = self._transport.batch()
        for offset, _ in chosen:
            Replayed(self._store, partition).stage(batch, offset, self._engine.clock.now_ms())
        await self._transport.commit(partition, batch, [])

    return [(DeadLetters, "_append", put_back)]


def slice_matters() -> Replacements:
    """The first letter of a slice is decided a millisecond later."""
    real = Users.handle

    async def handle(self: Users, piece: Slice) -> None:
        self.folds[piece.partition].position.clock_ms += 1
        await real(self, piece)

    return [(Users, "handle", handle)]


def tally_apart() -> Replacements:
    """The counts of dispatches are not written with the dispatches."""
    real = Dispatches.stage_tally

    def stage(self: Dispatches, batch: Any) -> None:
        if self._next_seq % 3:
            real(self, batch)

    return [(Dispatches, "stage_tally", stage)]


def outcome_repeated_with_new_attempt() -> Replacements:
    """An outcome names the attempt after the one that it is of."""
    real = outcomes.outcome_of

    def outcome(partition: int, dispatch: Dispatch, kind: Any, *args: Any, **named: Any) -> Output:
        later = replace(dispatch, attempts=dispatch.attempts + (kind == "retry") * 2)
        return real(partition, later, kind, *args, **named)

    return [(agent, "outcome_of", outcome)]


def merge_taken_twice() -> Replacements:
    """The row of an anonymous user is sent twice, and its receiver takes in both."""
    parts, take = identity._parts, identity.take

    def twice(*args: Any) -> list[Any]:
        found = parts(*args)
        return [*found, *found]

    return [(identity, "_parts", twice), (identity, "take", lambda *args: take(*args) or True)]


def late_event_dropped() -> Replacements:
    """What comes for a device after its user was merged is not sent on."""
    return [(Fold, "_send_on", lambda *args: True)]


def audience_of_now() -> Replacements:
    """A scheduled campaign goes to those who are in its audience when their step comes, not at its moment."""

    def touch(self: Fanning, user: User, user_key: str, stepped: FanOut | None = None) -> None:
        user.chosen = []

    return [(Fanning, "touch", touch)]


PLANTS: dict[str, Callable[[], Replacements]] = {
    plant.__name__: plant
    for plant in (
        outcome_before_state,
        attempt_before_record,
        record_not_synced,
        accidental_dispatch_id,
        position_not_stored,
        row_without_offset,
        outputs_without_state,
        watermark_early,
        export_cursor_early,
        set_order,
        consent_not_read_again,
        rendered_again,
        causes_not_kept,
        timer_late,
        timer_not_armed_again,
        dead_letter_dropped,
        id_forgotten,
        mail_sent_again,
        outbox_not_looked_into,
        replay_before_its_mark,
        slice_matters,
        tally_apart,
        outcome_repeated_with_new_attempt,
        merge_taken_twice,
        late_event_dropped,
        audience_of_now,
    )
}
