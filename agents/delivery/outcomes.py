"""Outcomes: what a user's row is told of a dispatch, and how a crash between attempt and outcome is settled."""

import asyncio
from collections.abc import Callable
from functools import cache

from prometheus_client import Counter

from agents.delivery.writer import Stage, Writer
from channels.channel import Provider, Receipt, Request
from config import metrics
from streams import topics
from streams.codec import pack
from streams.mailbox import Outcome, OutcomeKind
from streams.records import Output
from tables.dispatches import Dispatch, Dispatches
from tables.store import Batch


@cache
def _counted(channel: str, kind: str) -> Counter:
    return metrics.OUTCOMES.labels(channel, kind)


def outcome_of(
    partition: int, dispatch: Dispatch, kind: OutcomeKind, duration_ms: int = 0, *, is_delivered: bool = False
) -> Output:
    """The letter that tells what became of a dispatch at its last attempt."""
    _counted(dispatch.channel, kind).inc()
    attempt = max(1, dispatch.attempts)
    outcome = Outcome(
        dispatch.dispatch_id,
        attempt,
        kind,
        dispatch.updated_ms,
        dispatch.reason,
        dispatch.address,
        duration_ms,
        is_delivered,
    )
    return Output(topics.MAILBOX.name, partition, dispatch.user.encode(), pack(outcome))


async def settle_uncertain(
    table: Dispatches,
    writer: Writer,
    providers: dict[str, Provider],
    finished: Callable[[Dispatches, Dispatch, Receipt], Stage],
) -> None:
    """Bring to an end what was being attempted when the last owner stopped, by its provider's own rule.

    Another provider than the one that attempted a dispatch knows nothing of it, so that one is held.
    """
    uncertain = {dispatch.dispatch_id: dispatch for dispatch in table.open(table.attempting)}
    if uncertain:  # the last owner may have died before it synced them, and a power cut could still take them back
        await writer.change(lambda batch, outputs: None, durable=True)
    receipts: list[Receipt] = []
    for channel, provider in providers.items():
        requests = [
            Request(each.dispatch_id, each.address, each.request, each.host)
            for each in uncertain.values()
            if each.channel == channel and each.provider == provider.name
        ]
        if requests:
            receipts += await provider.settle(requests)
    told = {receipt.dispatch_id: receipt for receipt in receipts}
    stages: list[Stage] = []
    for name, dispatch in uncertain.items():
        reason = f"uncertain: attempted by {dispatch.provider or 'another provider'}, which is not set up now"
        receipt = told.get(name) or Receipt(name, "held", reason)
        again = receipt.kind == "retry"
        stages.append(_attempt_again(table, dispatch) if again else finished(table, dispatch, receipt))
    await asyncio.gather(*map(writer.change, stages))  # in few commits, however many they are


def _attempt_again(table: Dispatches, dispatch: Dispatch) -> Stage:
    """At once, and without counting it as a failure: the other side is not at fault when a worker stops.

    No outcome has told this attempt's number, so the next one may have it.
    """

    def stage(batch: Batch, outputs: list[Output]) -> None:
        dispatch.attempts = max(0, dispatch.attempts - 1)
        table.move(batch, dispatch, "pending", dispatch.updated_ms)

    return stage
