"""Steps at which a worker is killed while partitions change hands, or frozen for longer than its session."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agents.delivery.agent import Delivery
from agents.engine.engine import Engine
from tables.dispatches import Dispatch
from tests.chaos.points import Point

ENGINE: Final = "agents.engine.engine:Engine"
CLAIMS: Final = "agents.engine.kafka.claims:Claims"
TRANSPORT: Final = "agents.engine.kafka.transport:KafkaTransport"
STOPPING_S: Final = 0.5
"""A process of several threads does not stop at once: until then this one must not go on."""

CRASHES: Final[dict[str, Point]] = {
    "revoked": Point("agents.engine.kafka.membership:MemberConsumer.on_partitions_revoked", "before"),
    "release.before": Point(f"{ENGINE}.release", "before"),
    "resting": Point("agents.delivery.agent:Delivery.rest", "after"),
    "suspended": Point(f"{TRANSPORT}.suspend", "after"),
    "release.after": Point(f"{ENGINE}.release", "after"),
    "assigned": Point(f"{ENGINE}.hold", "after"),
    "closing": Point(f"{ENGINE}._close", "before"),
    "closed": Point(f"{ENGINE}._close", "after"),
    "opening": Point(f"{ENGINE}._open", "before"),
    "restoring": Point("agents.engine.kafka.transport:restore", "before"),
    "restored": Point("agents.engine.kafka.transport:restore", "after"),
    "fencing": Point(f"{CLAIMS}._fence", "before"),
    "fenced": Point(f"{CLAIMS}._fence", "after"),
    "claiming": Point(f"{CLAIMS}.renew", "before"),
    "claimed": Point(f"{CLAIMS}.renew", "after"),
    "opened": Point(f"{ENGINE}._open", "after"),
    "settled": Point("agents.delivery.agent:settle_uncertain", "after"),
    "flowing": Point(f"{ENGINE}._flow", "before"),
}
"""While a rebalance goes on: at the first of these calls after the start, or a later one."""

FREEZES: Final[dict[str, Point]] = {
    "confirming": Point(f"{TRANSPORT}.confirm", "before", 30),
    "committing": Point("aiokafka:AIOKafkaProducer.commit_transaction", "before", 30),
    "committed": Point("aiokafka:AIOKafkaProducer.commit_transaction", "after", 30),
    "writing": Point("tables.store:Store.write", "before", 30),
    "recorded": Point("agents.delivery.agent:Delivery._record", "after", 10),
    "linking": Point("channels.sinks.avro_files:_link", "before", 3),
    "linked": Point("channels.sinks.avro_files:_link", "after", 3),
    "cursor": Point("agents.export:Export._advance", "before", 3),
    "intake": Point("agents.intake:Intake.handle", "before", 10),
    "mailing": Point("tests.chaos.fleet.steps:before_mail", "after", 10),
    "claimed": Point(f"{CLAIMS}.renew", "after", 2),
}
"""At a call of the first so many after the start."""

GIVEN_UP: Final = "given up"
GIVING_UP: Final = Point("tests.chaos.fleet.steps:after_giving_up", "after")
"""When a third one's coming has made a worker give up its partitions, and before it hears which it has now."""


def before_mail() -> None:
    """A step of its own: a mail is recorded as being attempted, and nobody has asked whether it is still ours."""


def watch_mails() -> None:
    """Let `before_mail` be called before each mail is carried to its outcome."""
    real = Delivery._carry

    async def carry(self: Delivery, partition: int, dispatch: Dispatch) -> bool:
        if dispatch.channel == "email":
            before_mail()
        return await real(self, partition, dispatch)

    setattr(Delivery, "_carry", carry)  # noqa: B010


def after_giving_up() -> None:
    """A step of its own: partitions that were held have been released."""


def watch_releases() -> None:
    """Let `after_giving_up` be called when something was held."""
    real = Engine.release

    async def release(self: Engine) -> None:
        await real(self)
        if self.held:
            after_giving_up()

    setattr(Engine, "release", release)  # noqa: B010


def steps() -> dict[str, Point]:
    """Every step, by name."""
    return CRASHES | FREEZES | {GIVEN_UP: GIVING_UP}


def freezes() -> Callable[[Path], None]:
    """Stop this process once, as SIGSTOP from outside would; `mark` is created just before."""
    stops = [signal.SIGSTOP]

    def stop(mark: Path) -> None:
        if stops:
            number = stops.pop()
            mark.touch()
            os.kill(os.getpid(), number)
            time.sleep(STOPPING_S)

    return stop
