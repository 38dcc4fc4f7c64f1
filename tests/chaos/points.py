"""Crash points: the named steps of the product at which the harness kills it, without a hook in the product."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

AGENT = "agents.delivery.agent"
ENGINE = "agents.engine.engine:Engine"
FILES = "channels.sinks.avro_files"
COMMITTER = "agents.engine.kafka.committer:Committer"


class Point(NamedTuple):
    """A step and its side; `calls_max`: one of the first so many calls is hit; `stops`: hit by stopping the process."""

    target: str
    side: str
    calls_max: int = 1
    stops: bool = False


BOTH: Final[dict[str, Point]] = {
    "start.before": Point("agents.node:Node.start", "before"),
    "start.connected": Point("agents.node:Node.connect", "after"),
    "start.adopted": Point("agents.definitions:Workspaces.adopt", "after"),
    "start.after": Point("agents.node:Node.start", "after"),
    "open.before": Point(f"{ENGINE}._open", "before", 4),
    "open.after": Point(f"{ENGINE}._open", "after", 4),
    "settle.before": Point(f"{AGENT}:settle_uncertain", "before", 4),
    "settle.after": Point(f"{AGENT}:settle_uncertain", "after", 4),
    "intake.before": Point("agents.intake:Intake.handle", "before", 8),
    "intake.after": Point("agents.intake:Intake.handle", "after", 8),
    "fold.before": Point("streams.fold:Fold.apply", "before", 60),
    "fold.after": Point("streams.fold:Fold.apply", "after", 60),
    "timer.after": Point("streams.fold:Fold.fire_next", "after", 30),
    "users.commit.before": Point("agents.users:Users._commit", "before", 12),
    "users.commit.after": Point("agents.users:Users._commit", "after", 12),
    "write_batch.before": Point("tables.store:Store.write", "before", 30),
    "write_batch.after": Point("tables.store:Store.write", "after", 30),
    "recorded.before": Point(f"{AGENT}:Delivery._record", "before", 6),
    "recorded.after": Point(f"{AGENT}:Delivery._record", "after", 6),
    "attempting.staged": Point(f"{AGENT}:Delivery._attempting", "after", 12),
    "webhook.before": Point("channels.calls:Calls.attempt", "before", 12),
    "webhook.after": Point("channels.calls:Calls.attempt", "after", 12),
    "mail.before": Point("channels.smtp:Smtp.attempt", "before", 6),
    "mail.handed_over": Point("channels.smtp:Smtp._hand_over", "before", 6),
    "mail.after": Point("channels.smtp:Smtp.attempt", "after", 6),
    "outcome.staged": Point(f"{AGENT}:outcome_of", "after", 12),
    "export.write.before": Point(f"{FILES}:AvroFiles.write", "before", 3),
    "export.rename.before": Point(f"{FILES}:_link", "before", 3),
    "export.rename.after": Point(f"{FILES}:_link", "after", 3),
    "export.cursor.before": Point("agents.export:Export._advance", "before", 3),
    "export.cursor.after": Point("agents.export:Export._advance", "after", 3),
    "scan.switched": Point("streams.fold:Fold._switch", "after", 2),
    "scan.asked": Point("agents.scan:_Scans._next", "after", 2),
    "scan.row.before": Point("streams.fold:Fold.build_next", "before", 12),
    "scan.row.after": Point("streams.fold:Fold.build_next", "after", 12),
    "fanout.opened": Point("streams.fanning:Fanning._open", "after", 2),
    "fanout.asked": Point("agents.fanout:_FanOuts._next", "after", 6),
    "fanout.rows.before": Point("streams.fan_steps:FanSteps.next", "before", 6),
    "fanout.rows.after": Point("streams.fan_steps:FanSteps.next", "after", 6),
    "identify.after": Point("streams.identity:decide_identify", "after"),
    "forward.after": Point("streams.identity:send_on", "after", 3),
    "merge.before": Point("streams.users:decide_merge", "before"),
    "merge.after": Point("streams.users:decide_merge", "after"),
    "reports.count.after": Point("agents.reports:fold", "after", 30),
    "reports.commit.before": Point("agents.reports:Reports._commit", "before", 8),
    "reports.commit.after": Point("agents.reports:Reports._commit", "after", 8),
    "stop.before": Point("agents.node:Node.stop", "before", stops=True),
    "stop.delivery": Point(f"{AGENT}:Delivery.stop", "after", stops=True),
    "stop.engine": Point(f"{ENGINE}.stop", "after", stops=True),
    "stop.after": Point("agents.node:Node.stop", "after", stops=True),
    "close.before": Point(f"{ENGINE}._close", "before", 4, stops=True),
    "close.after": Point(f"{ENGINE}._close", "after", 4, stops=True),
}
EMBEDDED: Final[dict[str, Point]] = {
    "outputs.before": Point("tables.log:Log.stage", "before", 30),
    "outputs.after": Point("tables.log:Log.stage", "after", 30),
    "append.before": Point("agents.engine.embedded:EmbeddedTransport.append", "before", 8),
    "append.after": Point("agents.engine.embedded:EmbeddedTransport.append", "after", 8),
    "sync.before": Point("tables.store:Store.sync", "before", 6),
    "sync.after": Point("tables.store:Store.sync", "after", 6),
}
KAFKA: Final[dict[str, Point]] = {
    "outputs.before": Point(f"{COMMITTER}._produce", "before", 8),
    "outputs.after": Point("agents.engine.kafka.committer:send_all", "after", 12),
    "changelog.before": Point("tables.changelog:Changelog.rows", "before", 8),
    "changelog.after": Point("tables.changelog:Changelog.stage", "after", 8),
    "transaction.before": Point("aiokafka:AIOKafkaProducer.commit_transaction", "before", 8),
    "transaction.after": Point("aiokafka:AIOKafkaProducer.commit_transaction", "after", 8),
    "kept.before": Point(f"{COMMITTER}._keep", "before", 12),
    "kept.after": Point(f"{COMMITTER}._keep", "after", 12),
    "claim.before": Point("agents.engine.kafka.claims:Claims.renew", "before", 6),
    "claim.after": Point("agents.engine.kafka.claims:Claims.renew", "after", 6),
    "fence.before": Point("agents.engine.kafka.claims:Claims._fence", "before"),
    "fence.after": Point("agents.engine.kafka.claims:Claims._fence", "after"),
    "restore.before": Point("agents.engine.kafka.transport:restore", "before", 4),
    "restore.after": Point("agents.engine.kafka.transport:restore", "after", 4),
    "rebalance.before": Point(f"{ENGINE}.release", "before", stops=True),
    "rebalance.after": Point(f"{ENGINE}.release", "after", stops=True),
}


def points_of(transport: str) -> dict[str, Point]:
    """Every crash point of a transport, by name."""
    return BOTH | (KAFKA if transport == "kafka" else EMBEDDED)


def find(target: str) -> tuple[Any, str]:
    """The owner and the name of `module:Class.function`; raises AttributeError after a rename."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    getattr(owner, name)
    return owner, name


def arm(point: Point, call: int, mark: Path, act: Callable[[Path], None] | None = None) -> None:
    """Kill this process, or let `act` hit it, at the given call of the step; `mark` is created just before."""
    owner, name = find(point.target)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def at(side: str) -> None:
        nonlocal calls
        calls += side == "before"
        if side == point.side and calls >= call:
            (act or die)(mark)

    async def wait(*args: Any, **kwargs: Any) -> Any:
        at("before")
        answer = await real(*args, **kwargs)
        at("after")
        return answer

    def run(*args: Any, **kwargs: Any) -> Any:
        at("before")
        answer = real(*args, **kwargs)
        at("after")
        return answer

    setattr(owner, name, wait if inspect.iscoroutinefunction(real) else run)


def die(mark: Path) -> NoReturn:
    """End this process as kill -9 does."""
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("kill -9 returned")
