"""Planted bugs: each breaks one law or guarantee, by a patch in the process under test; each must be found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from tests.chaos.planted_fans import (
    fan_out_restarted,
    late_event_dropped,
    letters_twice,
    nothing_seen,
    report_position_early,
)
from tests.chaos.points import find

Patch = Callable[[Any], Any]
LATE_S: Final = 0.3
EARLY_MS: Final = 1_900
LATE: Final[list[asyncio.Task[None]]] = []


class Bug(NamedTuple):
    """The law it breaks, the function it replaces, and the crash points and faults that bring it to light.

    `told_by`: words of the product's own, with which it refuses to start, perhaps before a point is reached.
    """

    law: str
    target: str
    patch: Patch
    points: tuple[str, ...]
    transport: str = "embedded"
    told_by: str = ""


def _commit_before_ack(real: Any) -> Any:
    async def forward(self: Any, partition: int, batch: Any, outputs: Any) -> None:
        await real(self, partition, batch, [])
        await real(self, partition, self.batch(), outputs)

    return forward


def _without_position(real: Any) -> Any:
    def stage_rest(self: Any, batch: Any) -> None:
        self.due.stage(batch)
        self._dirty = {}

    return stage_rest


def _position_ahead(real: Any) -> Any:
    def stage_position(batch: Any, agent: str, topic: str, partition: int, next_offset: int) -> None:
        real(batch, agent, topic, partition, next_offset + 1)

    return stage_position


def _lost_row(real: Any) -> Any:
    def stage_rows(self: Any, batch: Any) -> Any:
        self._dirty.pop(min(self._dirty, default=""), None)
        return real(self, batch)

    return stage_rows


def _attempt_before_record(real: Any) -> Any:
    async def change(self: Any, stage: Any, *, durable: bool = False, **more: Any) -> None:
        if not durable:
            await real(self, stage, **more)
            return
        staged = self._transport.batch()
        outputs: list[Any] = []
        stage(staged, outputs)

        async def record() -> None:
            await asyncio.sleep(LATE_S)
            await self._transport.commit(self._partition, staged, outputs)

        LATE.append(asyncio.create_task(record()))  # the attempt goes on at once

    return change


def _rerendered(real: Any) -> Any:
    async def attempt(self: Any, request: Any) -> Any:
        call = msgspec.json.decode(request.body)
        call["body"] += f" {os.getpid()}"
        return await real(self, msgspec.structs.replace(request, body=msgspec.json.encode(call)))

    return attempt


def _settled_as(kind: str) -> Patch:
    def patch(real: Any) -> Any:
        async def settle(self: Any, requests: Any) -> Any:
            return [msgspec.structs.replace(each, kind=kind) for each in await real(self, requests)]

        return settle

    return patch


def _cursor_early(real: Any) -> Any:
    async def write(self: Any, partition: int, event_type: str) -> None:
        held = self._partitions[partition]
        values, held.pending = held.pending, {}
        held.cursors.last[event_type] = values[event_type].values[-1][0]
        await self._advance(partition, held)
        held.pending = values
        await real(self, partition, event_type)

    return write


def _name_by_chance(real: Any) -> Any:
    def object_name(*args: Any) -> str:
        name: str = real(*args)
        return name.replace("dataexport.", f"dataexport.{os.getpid()}-")

    return object_name


def _unsynced(real: Any) -> Any:
    async def sync(self: Any, patience_s: float = 0.0) -> None:
        return

    return sync


def _commit_later(real: Any) -> Any:
    async def commit_transaction(self: Any) -> None:
        async def commit() -> None:
            await asyncio.sleep(LATE_S)
            await real(self)

        LATE.append(asyncio.create_task(commit()))

    return commit_transaction


def _early(real: Any) -> Any:
    return lambda self, until_ms: real(self, until_ms + EARLY_MS)


def _always(answer: Any) -> Patch:
    return lambda real: lambda *args, **kwargs: answer


def _always_second(real: Any) -> Any:
    return lambda first, second, *rest: second


WRITES = ("write_batch.after", "write_batch.before", "users.commit.after", "recorded.after")
BUGS: Final[dict[str, Bug]] = {
    "commit_before_ack": Bug(
        "a position is kept with the outputs that it stands for",
        "agents.engine.embedded:EmbeddedTransport.forward",
        _commit_before_ack,
        ("outputs.before",),
    ),
    "position_not_stored": Bug(
        "rows and position are one batch", "tables.partition:PartitionState.stage_rest", _without_position, WRITES
    ),
    "position_past_unfinished": Bug(
        "a position is the end of the finished prefix",
        "agents.delivery.agent:stage_position",
        _position_ahead,
        WRITES,
    ),
    "row_not_stored": Bug("a slice is written whole", "tables.partition:PartitionState.stage_rows", _lost_row, WRITES),
    "attempt_before_record": Bug(
        "an attempt is recorded before it is made",
        "agents.delivery.writer:Writer.change",
        _attempt_before_record,
        ("mail.after", "webhook.after"),
    ),
    "rerendered_resend": Bug(
        "a resend has the same bytes", "channels.calls:Calls.attempt", _rerendered, ("webhook.after",)
    ),
    "uncertain_mail_resent": Bug(
        "an uncertain mail is held", "channels.smtp:Smtp.settle", _settled_as("retry"), ("mail.after",)
    ),
    "uncertain_call_dropped": Bug(
        "an uncertain webhook is sent again", "channels.calls:Calls.settle", _settled_as("sent"), ("webhook.before",)
    ),
    "export_cursor_early": Bug(
        "a cursor follows its file",
        "agents.export:Export._write",
        _cursor_early,
        ("export.write.before", "export.rename.before"),
    ),
    "export_name_by_chance": Bug(
        "a file's name is made of its first offset",
        "channels.sinks.avro_files:object_name",
        _name_by_chance,
        ("export.rename.after", "export.cursor.before"),
    ),
    "timer_early": Bug(
        "no timer fires before it is due",
        "streams.fold:Fold.fire_next",
        _early,
        ("timer.after", "fault: kill -9 at random", "fault: SIGTERM"),
    ),
    "timer_not_stored": Bug(
        "timers are kept with their row",
        "tables.due:DueIndex.stage",
        _always(None),
        ("users.commit.after", "fold.after"),
    ),
    "sync_left_out": Bug(
        "the log is synced before a dispatch is attempted",
        "agents.engine.embedded:EmbeddedTransport.sync",
        _unsynced,
        ("fault: power loss",),
    ),
    "state_before_commit": Bug(
        "the store is written when the transaction is committed",
        "aiokafka:AIOKafkaProducer.commit_transaction",
        _commit_later,
        ("write_batch.after", "users.commit.after"),
        "kafka",
        "and the changelog ends at",
    ),
    "fan_out_restarted": Bug(
        "a fan-out decides each user once, whatever becomes of its steps",
        "streams.fan_steps:FanSteps.next",
        fan_out_restarted,
        ("fanout.rows.after", "fanout.rows.before", "fanout.asked"),
    ),
    "audience_of_now": Bug(
        "a scheduled campaign goes to its audience of that moment",
        "streams.fanning:Fanning.touch",
        _always(None),
        ("fanout.asked", "fanout.opened"),
    ),
    "letters_twice": Bug(
        "what one user tells another counts once",
        "streams.identity:_parts",
        letters_twice,
        ("identify.after", "merge.after"),
    ),
    "late_event_dropped": Bug(
        "what comes late for a device is its user's",
        "streams.identity:send_on",
        late_event_dropped,
        ("forward.after", "identify.after"),
    ),
    "report_position_early": Bug(
        "counters and their position are one commit",
        "agents.reports:Reports._commit",
        report_position_early,
        ("fault: kill -9 at random", "reports.count.after"),
    ),
    "report_position_not_stored": Bug(
        "a record is counted once", "agents.reports:stage_progress", _always(None), ("fault: kill -9 at random",)
    ),
    "opens_apart": Bug(
        "what is done with a message is counted in one place",
        "streams.outputs:_home",
        _always_second,
        ("fault: kill -9 at random", "fault: SIGTERM"),
    ),
    "report_memory_lost": Bug(
        "a second opening is not unique",
        "tables.reports:ReportsTable.seen",
        nothing_seen,
        ("fault: kill -9 at random", "reports.commit.after"),
    ),
    "id_forgotten": Bug("an id is applied once", "streams.users:seen_before", _always(False), ("append.after",)),
}


def plant(name: str) -> None:
    """Put a bug into this process."""
    bug = BUGS[name]
    owner, attribute = find(bug.target)
    setattr(owner, attribute, bug.patch(getattr(owner, attribute)))
