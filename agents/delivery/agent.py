"""The delivery agent: opens and closes partitions, records sends, and carries each dispatch to its outcome."""

import asyncio
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import Final

from agents.definitions import Workspaces
from agents.delivery.attempts import attempted
from agents.delivery.gate import Gates
from agents.delivery.held import change_held
from agents.delivery.outcomes import outcome_of, settle_uncertain
from agents.delivery.permits import Permits
from agents.delivery.pump import Pump
from agents.delivery.rendering import Rendering
from agents.delivery.uncertain import holds, uncertain
from agents.delivery.writer import Stage, Writer
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from channels.channel import Provider, Receipt, Request
from channels.tracking import Tracking
from config import metrics
from streams import topics
from streams.errors import Revoked
from streams.policy.retry import RETRIES_EXHAUSTED, retry_delay_s
from streams.records import Output
from streams.sends import LANES, Lane, Send, decode_send
from tables.dispatches import Dispatch, Dispatches
from tables.partition import UsersView
from tables.positions import read_position, stage_position
from tables.restored import Restored, read_restored
from tables.store import Batch

NAME: Final = "delivery"
PART_SENDS: Final = 64
PART_BYTES: Final = 1024 * 1024
CLOSE_S: Final = 2.0
LOOK_S: Final = 0.1
DUE_MAX: Final = 128
SWEEP_MAX: Final = 256
KEPT_AFTER_FINAL_MS: Final = 72 * 3_600_000


class Delivery:
    """The dispatches of the open partitions, and the providers they go to."""

    name = NAME
    reads = tuple(topics.SENDS.values())

    def __init__(
        self,
        engine: Engine,
        workspaces: Workspaces,
        providers: dict[str, Provider],
        tracking: Tracking | None = None,
    ) -> None:
        """`providers` has one for every channel."""
        self._engine = engine
        self._providers = providers
        self._permits = Permits(UsersView(engine.store), workspaces)
        self._restored: dict[int, Restored | None] = {}
        self._rendering = Rendering(workspaces, engine.settings.webhook_url or "", tracking)
        self._gates = {
            name: Gates(each.limits.at_once, each.limits.at_once_per_host or each.limits.at_once)
            for name, each in providers.items()
        }
        self._pumps = {
            name: Pump(name, each.limits, self._begin, self._carry, engine.pace, engine.fail)
            for name, each in providers.items()
        }
        self._seconds = {name: metrics.ATTEMPT_SECONDS.labels(name) for name in providers}
        self._asked: dict[str, dict[str, float]] = {name: {} for name in providers}
        self._writers: dict[int, Writer] = {}
        self._clock: asyncio.Task[None] | None = None
        self.dispatches: dict[int, Dispatches] = {}

    # ---- partitions

    async def open(self, partition: int) -> None:
        """Take up a partition's dispatches; what a crash left between attempt and outcome is settled first."""
        table = Dispatches(self._engine.store, partition)
        pace = self._engine.pace
        for _ in table.load():
            await pace.breathe()
        writer = Writer(self._engine, partition, table, self._wake, self._engine.fail)
        self.dispatches[partition], self._writers[partition] = table, writer
        self._restored[partition] = read_restored(self._engine.store, partition)
        await settle_uncertain(table, writer, self._providers, self._finished)
        for pump in self._pumps.values():
            pump.join(partition, table)
        if self._clock is None:
            self._clock = asyncio.create_task(self._keep_time(), name="dispatches-clock")

    async def settle(self, partition: int) -> None:
        """Settle what a crash left between attempt and outcome, as `open` does, where nothing is to be attempted."""
        table = Dispatches(self._engine.store, partition)
        writer = Writer(self._engine, partition, table, lambda channels: None, self._engine.fail)
        await settle_uncertain(table, writer, self._providers, self._finished)
        await writer.close()

    async def close(self, partition: int) -> None:
        """Let the partition's attempts end, or cut them off, write what they gave, and forget it."""
        await asyncio.gather(*(pump.leave(partition, CLOSE_S) for pump in self._pumps.values()))
        self.dispatches.pop(partition, None)
        writer = self._writers.pop(partition, None)
        if writer is not None:
            await writer.close()

    async def rest(self) -> None:
        """Begin no attempt, and let those under way end and be written, within the patience of a close."""
        await asyncio.gather(*(pump.rest(CLOSE_S) for pump in self._pumps.values()))

    def go_on(self) -> None:
        """Attempt again."""
        for pump in self._pumps.values():
            pump.go_on()

    async def stop(self) -> None:
        """End the attempts of all partitions together, before the partitions are closed; then the providers."""
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        await asyncio.gather(*(pump.stop(CLOSE_S) for pump in self._pumps.values()))
        await asyncio.gather(*(provider.close() for provider in self._providers.values()))

    @property
    def idle(self) -> bool:
        """Whether every dispatch of the open partitions is final, or held, and that is kept."""
        written = all(writer.idle for writer in self._writers.values())
        return written and not any(table.running for table in self.dispatches.values())

    @property
    def pumps(self) -> dict[str, Pump]:
        """The pump of each channel, to look at."""
        return self._pumps

    def oldest_s(self, channel: str) -> float:
        """How long the provider has had the oldest request that it has not answered; 0 when it owes none."""
        first = next(iter(self._asked[channel].values()), None)
        return 0.0 if first is None else perf_counter() - first

    def position(self, topic: str, partition: int) -> int:
        """The next offset, as committed with the dispatches."""
        return read_position(self._engine.store, NAME, topic, partition)

    def _wake(self, channels: set[str]) -> None:
        for channel in channels:
            self._pumps[channel].wake()

    # ---- recording

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Holes behind the last send."""

        def stage(batch: Batch, outputs: list[Output]) -> None:
            stage_position(batch, NAME, topic, partition, finished)

        await self._opened(partition)[1].change(stage)

    async def handle(self, piece: Slice) -> None:
        """Record a slice's sends with their rendered requests; they are attempted at their channel's own pace."""
        pace, is_bulk = self._engine.pace, piece.topic in topics.BULK
        part: list[tuple[Dispatch, str]] = []
        size = 0
        for record in piece.records:
            send = decode_send(record.value)
            part.append(self._prepare(piece.partition, send))
            size += len(part[-1][0].request)
            await pace.breathe(background=is_bulk)
            is_full = len(part) >= PART_SENDS or size >= PART_BYTES
            if is_full and record is not piece.records[-1]:
                await self._record(piece, part, record.offset + 1)
                part, size = [], 0
        await self._record(piece, part, piece.next_offset)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        self._engine.slices.finish(piece)

    def _opened(self, partition: int) -> tuple[Dispatches, Writer]:
        """A partition's table and writer. Raises Revoked when it was given up while somebody waited."""
        writer = self._writers.get(partition)
        if writer is None:
            raise Revoked(f"the dispatches of partition {partition} were given up meanwhile")
        return self.dispatches[partition], writer

    def _prepare(self, partition: int, send: Send) -> tuple[Dispatch, str]:
        if send.refusal:
            metrics.LIMIT_HITS.labels(send.refusal.partition(":")[0]).inc()
        refusal = send.refusal or self._permits.refusal(partition, send.campaign, send.channel, send.user)
        return self._rendering.dispatch(send, refusal)

    async def _record(self, piece: Slice, part: list[tuple[Dispatch, str]], next_offset: int) -> None:
        """Keep dispatches that are not known yet, and the position behind them, in one commit."""
        table, writer = self._opened(piece.partition)
        started: list[Dispatch] = []

        def stage(batch: Batch, outputs: list[Output]) -> None:
            known = table.known([dispatch.dispatch_id for dispatch, _ in part])
            now_ms = self._engine.clock.now_ms()
            for dispatch, refusal in part:
                if dispatch.dispatch_id in known:
                    continue
                known.add(dispatch.dispatch_id)
                dispatch.updated_ms, dispatch.reason = self._time_of(dispatch), refusal
                if refusal:
                    table.move(batch, dispatch, "aborted", now_ms)
                    outputs.append(outcome_of(piece.partition, dispatch, "aborted"))
                elif reason := self._why_uncertain(piece.partition, dispatch):
                    dispatch.reason = reason
                    table.move(batch, dispatch, "held", now_ms)
                    outputs.append(outcome_of(piece.partition, dispatch, "held"))
                elif table.is_next(dispatch) and self._pumps[dispatch.channel].reserve(dispatch):
                    self._attempting(table, dispatch, batch)
                    started.append(dispatch)
                else:
                    table.move(batch, dispatch, "pending", now_ms)
            stage_position(batch, NAME, piece.topic, piece.partition, next_offset)

        try:
            lane: Lane = "bulk" if piece.topic in topics.BULK else "transactional"
            await writer.change(stage, durable=True, lane=lane)
        except Revoked:
            for dispatch in started:
                self._pumps[dispatch.channel].give_back(dispatch)
            raise
        for dispatch in started:
            self._pumps[dispatch.channel].use(piece.partition, dispatch)

    def _why_uncertain(self, partition: int, dispatch: Dispatch) -> str:
        """Why a new dispatch is held: the state is a restored one, whose original may have sent it already."""
        restored = self._restored.get(partition)
        if restored is None or dispatch.decided_ms > restored.until_ms:
            return ""
        return uncertain(restored) if holds(restored, dispatch.channel, self._engine.settings) else ""

    # ---- attempting

    def _attempting(self, table: Dispatches, dispatch: Dispatch, batch: Batch) -> None:
        dispatch.attempts += 1
        dispatch.provider = self._providers[dispatch.channel].name
        table.move(batch, dispatch, "attempting", self._engine.clock.now_ms())

    async def _begin(self, partition: int, taken: list[Dispatch]) -> None:
        """Mark dispatches of one lane as being attempted, in one commit."""
        table, writer = self._opened(partition)

        def stage(batch: Batch, outputs: list[Output]) -> None:
            for dispatch in taken:
                self._attempting(table, dispatch, batch)

        await writer.change(stage, durable=True, lane=taken[0].kind)

    async def _carry(self, partition: int, dispatch: Dispatch) -> bool:
        """One attempt, from its record to its outcome; True if the other side was silent."""
        provider = self._providers[dispatch.channel]
        (table, writer), lane = self._opened(partition), dispatch.kind
        gate = self._gates[dispatch.channel]
        await gate.enter(lane, dispatch.host)
        try:
            await self._engine.pace.breathe(background=lane == "bulk")
            proof = partial(self._engine.transport.confirm, partition)
            await proof()
            began = perf_counter()
            asked = self._asked[dispatch.channel]
            # Nothing is awaited between this proof, the reading of pause and consent, and the attempt itself.
            refusal = self._permits.refusal(
                partition, dispatch.campaign, dispatch.channel, dispatch.user, dispatch.address
            )
            if refusal:
                receipt = Receipt(dispatch.dispatch_id, "aborted", refusal)
            else:
                asked[dispatch.dispatch_id] = began
                try:
                    request = Request(dispatch.dispatch_id, dispatch.address, dispatch.request, proof=proof)
                    receipt = await attempted(provider, dispatch.channel, request, proof)
                finally:
                    del asked[dispatch.dispatch_id]
            seconds = perf_counter() - began
        finally:
            gate.leave(lane, dispatch.host)
        self._seconds[dispatch.channel].observe(seconds)
        duration_ms = 0 if refusal else round(seconds * 1000)
        await writer.change(self._finished(table, dispatch, receipt, duration_ms), lane=lane)
        return receipt.is_silent

    def _finished(self, table: Dispatches, dispatch: Dispatch, receipt: Receipt, duration_ms: int = 0) -> Stage:
        """How an attempt's end is written: the new state, and the outcome for the user's row."""

        def stage(batch: Batch, outputs: list[Output]) -> None:
            now_ms = self._engine.clock.now_ms()
            kind, reason, due_ms = receipt.kind, receipt.reason, 0
            if kind == "retry":
                delay_s = retry_delay_s(
                    dispatch.dispatch_id,
                    dispatch.attempts,
                    receipt.retry_after_s,
                    is_unreachable=receipt.is_silent,
                )
                if delay_s is None:
                    kind, reason = "failed", RETRIES_EXHAUSTED + reason
                else:
                    due_ms = now_ms + round(delay_s * 1000)
            dispatch.updated_ms, dispatch.reason = self._time_of(dispatch), reason
            table.move(batch, dispatch, kind, now_ms, due_ms)
            delivered = receipt.is_delivered
            outputs.append(outcome_of(table.partition, dispatch, kind, duration_ms, is_delivered=delivered))

        return stage

    def _time_of(self, dispatch: Dispatch) -> int:
        """Under the stream clock a dispatch lives at the time it was decided."""
        if self._engine.settings.clock == "stream":
            return dispatch.decided_ms
        return self._engine.clock.now_ms()

    # ---- what is held

    async def release(self, dispatch_id: str) -> int:
        """Let a held dispatch, or all (`*`), be attempted again; returns how many."""
        return await self._change_held(dispatch_id, "pending")

    async def discard(self, dispatch_id: str) -> int:
        """End a held dispatch, or all (`*`), as aborted; returns how many."""
        return await self._change_held(dispatch_id, "aborted")

    async def _change_held(self, dispatch_id: str, state: str) -> int:
        count = 0
        for partition in list(self.dispatches):
            table, writer = self._opened(partition)
            count += await change_held(table, writer, dispatch_id, state, self._engine.clock)
        return count

    # ---- time

    async def _keep_time(self) -> None:
        """Make due retries pending, and forget what has been final for 72 hours, a few at a time."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                for partition, table in list(self.dispatches.items()):
                    writer = self._writers.get(partition)
                    if writer is not None:
                        with suppress(Revoked):
                            await self._look(table, writer)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._engine.fail(error)
            raise

    async def _look(self, table: Dispatches, writer: Writer) -> None:
        now_ms = self._engine.clock.now_ms()
        due = [each for lane in LANES for each in table.due(lane, now_ms, DUE_MAX)]
        expired = table.expired(now_ms - KEPT_AFTER_FINAL_MS, SWEEP_MAX)
        if not due and not expired:
            return

        def stage(batch: Batch, outputs: list[Output]) -> None:
            for dispatch in due:
                table.move(batch, dispatch, "pending", now_ms)
            table.forget(batch, expired)

        await writer.change(stage)
