"""Delivery: a send is rendered, recorded, attempted, and its outcome told; the only writer of dispatches."""

from typing import Final

import msgspec

from agents.definitions import Workspaces
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from channels.channel import Envelope, Provider, Receipt, Render, Request, Skipped
from channels.registry import CHANNELS
from channels.render.engine import RenderContext, Renderer
from channels.render.errors import MessageAborted, RenderError
from config import metrics
from streams import ids, topics
from streams.codec import pack
from streams.mailbox import Outcome, OutcomeKind
from streams.policy.consent import may_receive
from streams.records import Output
from streams.sends import Send, decode_send
from tables.dispatches import Dispatch, Dispatches, State
from tables.partition import UsersView
from tables.positions import read_position, stage_position
from tables.store import Batch

NAME: Final = "delivery"
REASON_CHARS_MAX: Final = 200
PIECE_SENDS: Final = 25
"""Sends that are looked up at once, on the loop."""


class Delivery:
    """The dispatches of the open partitions, and the providers they go to."""

    name = NAME
    reads = tuple(topics.SENDS.values())

    def __init__(self, engine: Engine, workspaces: Workspaces, providers: dict[str, Provider]) -> None:
        self._engine = engine
        self._workspaces = workspaces
        self._providers = providers
        self._users = UsersView(engine.store)
        self._renderer = Renderer()
        self._renders: dict[tuple[int, str], Render] = {}
        self.dispatches: dict[int, Dispatches] = {}

    async def open(self, partition: int) -> None:
        """Take up a partition's dispatches, and bring to an end what a crash left between attempt and outcome."""
        table = self.dispatches[partition] = Dispatches(self._engine.store, partition)
        uncertain = [dispatch for dispatch in table.open() if dispatch.state == "attempting"]
        for channel in sorted({dispatch.channel for dispatch in uncertain}):
            of_channel = {found.dispatch_id: found for found in uncertain if found.channel == channel}
            requests = [_request(dispatch) for dispatch in of_channel.values()]
            receipts = await self._providers[channel].settle(requests)
            await self._finish(partition, of_channel, receipts)

    async def close(self, partition: int) -> None:
        """Forget a partition."""
        self.dispatches.pop(partition, None)

    def position(self, topic: str, partition: int) -> int:
        """The next offset, as committed with the dispatches."""
        return read_position(self._engine.store, NAME, topic, partition)

    async def handle(self, piece: Slice) -> None:
        """Record a slice's sends, then attempt them."""
        partition = piece.partition
        recorded = await self._record(piece)
        if recorded:
            await self._engine.transport.sync()
            await self._engine.transport.confirm(partition)
            await self._attempt(partition, recorded)
        metrics.RECORDS_READ.labels(NAME).inc(len(piece.records))
        self._engine.slices.finish(piece)

    async def _record(self, piece: Slice) -> dict[str, Dispatch]:
        """Render and record a slice's sends, with the new position; returns those to attempt."""
        table, pace = self.dispatches[piece.partition], self._engine.pace
        prepared: dict[str, Dispatch] = {}
        for start in range(0, len(piece.records), PIECE_SENDS):
            await pace.breathe()
            decoded = [decode_send(record.value) for record in piece.records[start : start + PIECE_SENDS]]
            sends = {send.dispatch_id: send for send in decoded if send.dispatch_id not in prepared}
            known = table.known(list(sends))
            fresh = [send for name, send in sends.items() if name not in known]
            consents = self._consents(piece.partition, [send.user for send in fresh])
            for send, consent in zip(fresh, consents, strict=True):
                await pace.breathe()
                prepared[send.dispatch_id] = self._prepare(send, consent)
        await pace.rest()
        batch = self._engine.transport.batch()
        outputs: list[Output] = []
        for dispatch in prepared.values():  # without a pause: another channel's commit takes the counts as they stand
            table.stage(batch, dispatch, old_state=None)
            if dispatch.state != "attempting":
                outputs.append(_outcome(piece.partition, dispatch))
        stage_position(batch, NAME, piece.topic, piece.partition, piece.next_offset)
        await self._commit(piece.partition, batch, table, outputs)
        return {name: dispatch for name, dispatch in prepared.items() if dispatch.state == "attempting"}

    def _prepare(self, send: Send, consent: str) -> Dispatch:
        """The dispatch of a send: rendered and about to be attempted, or aborted with the reason."""
        dispatch = Dispatch(
            send.dispatch_id,
            send.campaign,
            send.channel,
            send.user,
            send.version,
            send.decided_ms,
            "attempting",
            updated_ms=self._now_ms(send.decided_ms),
        )
        refusal = self._refusal(send.campaign, send.channel, consent)
        try:
            if refusal:
                raise Skipped(refusal)
            request = self._render(send)
            dispatch.address, dispatch.request, dispatch.attempts = request.address, request.body, 1
        except (Skipped, MessageAborted, RenderError) as error:
            dispatch.state = "aborted"
            dispatch.reason = str(error).partition("\n")[0][:REASON_CHARS_MAX]
        return dispatch

    def _render(self, send: Send) -> Request:
        key = (send.version, send.campaign)
        render = self._renders.get(key)
        if render is None:
            message = self._workspaces.of(send.version).campaigns[send.campaign].message
            render = self._renders[key] = CHANNELS[send.channel].compile(message, self._renderer)
        campaign = {
            "name": send.campaign,
            "dispatch_id": send.dispatch_id,
            "api_id": ids.definition_api_id("campaign", send.campaign),
        }
        context = RenderContext(
            profile={**send.profile, "user_id": send.user},
            custom=send.custom,
            event_properties=send.event_properties,
            campaign=campaign,
            now_s=send.decided_ms / 1000,
        )
        return render(Envelope(send.dispatch_id, send.campaign, send.decided_ms), context)

    async def _attempt(self, partition: int, recorded: dict[str, Dispatch]) -> None:
        """Read pause and consent once more, then attempt; the outcome is kept and told together."""
        dispatches = list(recorded.values())
        await self._engine.pace.rest()  # so that nobody's turn lies between reading consent and the attempt
        consents = self._consents(partition, [dispatch.user for dispatch in dispatches])
        requests: dict[str, list[Request]] = {}
        receipts: list[Receipt] = []
        for dispatch, consent in zip(dispatches, consents, strict=True):
            refusal = self._refusal(dispatch.campaign, dispatch.channel, consent)
            if refusal:
                receipts.append(Receipt(dispatch.dispatch_id, "aborted", refusal))
            else:
                requests.setdefault(dispatch.channel, []).append(_request(dispatch))
        for channel, batch in requests.items():
            receipts += await self._providers[channel].attempt(batch)
        await self._finish(partition, recorded, receipts)

    async def _finish(self, partition: int, open_ones: dict[str, Dispatch], receipts: list[Receipt]) -> None:
        """Write what became of dispatches, and tell their users, in one commit."""
        table, pace = self.dispatches[partition], self._engine.pace
        outputs: list[Output] = []
        finished: list[tuple[Dispatch, State]] = []
        for receipt in receipts:
            await pace.breathe()
            dispatch = open_ones[receipt.dispatch_id]
            finished.append((dispatch, dispatch.state))
            dispatch.state, dispatch.reason = receipt.kind, receipt.reason
            dispatch.updated_ms = self._now_ms(dispatch.decided_ms)
            outputs.append(_outcome(partition, dispatch))
        await pace.rest()
        batch = self._engine.transport.batch()
        for dispatch, old_state in finished:  # without a pause, like above
            table.stage(batch, dispatch, old_state=old_state)
        await self._commit(partition, batch, table, outputs)

    async def _commit(self, partition: int, batch: Batch, table: Dispatches, outputs: list[Output]) -> None:
        table.stage_counts(batch)
        await self._engine.transport.commit(partition, batch, outputs)

    def _consents(self, partition: int, users: list[str]) -> list[str]:
        """Per user the channel that is refused, nothing if none is, `?` where the row cannot be read."""
        return [
            "?" if attributes is None else "" if may_receive("email", attributes) else "email"
            for attributes in self._users.attributes(partition, users)
        ]

    def _refusal(self, campaign: str, channel: str, consent: str) -> str:
        """Why a dispatch may not go now: the campaign is paused, or consent is missing or unreadable."""
        if self._workspaces.latest.is_paused(campaign):
            return "campaign_paused"
        if consent == "?":
            return "consent_unreadable"
        return "unsubscribed" if consent == channel else ""

    def _now_ms(self, decided_ms: int) -> int:
        """Under the stream clock a dispatch lives at the time it was decided."""
        return decided_ms if self._engine.settings.clock == "stream" else self._engine.clock.now_ms()


def _request(dispatch: Dispatch) -> Request:
    return Request(dispatch.dispatch_id, dispatch.address, dispatch.request)


def _outcome(partition: int, dispatch: Dispatch) -> Output:
    kind = msgspec.convert(dispatch.state, OutcomeKind)
    metrics.OUTCOMES.labels(dispatch.channel, kind).inc()
    outcome = Outcome(
        dispatch.dispatch_id,
        max(1, dispatch.attempts),
        kind,
        dispatch.updated_ms,
        dispatch.reason,
        dispatch.address,
    )
    return Output(topics.MAILBOX.name, partition, dispatch.user.encode(), pack(outcome))
