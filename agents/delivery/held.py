"""Held dispatches: nobody knows whether they were sent, and an operator decides."""

from collections.abc import Callable
from typing import Final, cast

from agents.delivery.outcomes import outcome_of
from agents.delivery.writer import Writer
from agents.engine.engine import Engine
from config.clock import Clock
from streams.errors import BadSetting
from streams.records import Output
from tables.dispatches import RUNNING, Dispatches, State
from tables.store import Batch

ALL: Final = "*"
PART: Final = 128


async def change_held(table: Dispatches, writer: Writer, dispatch_id: str, state: str, clock: Clock) -> int:
    """Move a held dispatch, or all (`*`), to pending or aborted, a few at a time; returns how many."""
    count = 0

    def stage(batch: Batch, outputs: list[Output]) -> None:
        nonlocal count
        now_ms, moving = clock.now_ms(), table.moving
        for dispatch in table.open(names):
            # Two commands at once share a batch: the second would let a mail go twice.
            if dispatch.state != "held" or dispatch.dispatch_id in moving:
                continue
            count += 1
            dispatch.updated_ms, dispatch.reason = now_ms, "" if state == "pending" else "discarded"
            table.move(batch, dispatch, cast("State", state), now_ms)
            if state == "aborted":
                outputs.append(outcome_of(table.partition, dispatch, "aborted"))

    names = table.held("", PART) if dispatch_id == ALL else [dispatch_id]
    while names:
        await writer.change(stage)
        names = table.held(names[-1], PART) if dispatch_id == ALL else []
    return count


async def change_held_offline(engine: Engine, dispatch_id: str, state: str) -> int:
    """The same on a folder that no worker uses. Raises BadSetting on Kafka, where the state may be elsewhere."""
    if engine.settings.on_kafka:
        raise BadSetting("no worker answers; start one, then repeat the command")
    failures: list[BaseException] = []
    count = 0
    for partition in range(engine.settings.partitions):
        table = Dispatches(engine.store, partition)
        writer = Writer(engine, partition, table, lambda channels: None, failures.append)
        count += await change_held(table, writer, dispatch_id, state, engine.clock)
        await writer.close()
    return count


async def hold_open(engine: Engine, concerns: Callable[[str], bool], reason: str) -> int:
    """Hold every dispatch of the channels concerned that would be attempted; of a folder that no worker uses."""
    failures: list[BaseException] = []
    count = 0
    for partition in range(engine.settings.partitions):
        table = Dispatches(engine.store, partition)
        for _ in table.load():
            pass
        writer = Writer(engine, partition, table, lambda channels: None, failures.append)
        names = [each.dispatch_id for each in table.all() if each.state in RUNNING and concerns(each.channel)]

        def stage(batch: Batch, outputs: list[Output], *, table: Dispatches = table, names: list[str] = names) -> None:
            now_ms = engine.clock.now_ms()
            for dispatch in table.open(names[:PART]):
                dispatch.updated_ms, dispatch.reason = now_ms, reason
                table.move(batch, dispatch, "held", now_ms)
                outputs.append(outcome_of(table.partition, dispatch, "held"))
            del names[:PART]

        count += len(names)
        while names:
            await writer.change(stage)
        await writer.close()
    return count
