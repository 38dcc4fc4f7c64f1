"""A process that folds the mailbox log of a data folder with the real users agent, and writes down what came out.

`python -m tests.agents.fold_again PLAN`, where PLAN is the JSON of a `Plan`. With a fault planted, or with a
time to die, it shows what the comparison of two such processes would see.
"""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from agents import users as users_agent
from agents.definitions import Workspaces
from agents.engine.embedded import EmbeddedTransport
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from agents.users import Users
from config.clock import SystemClock
from config.settings import load_settings
from streams import users
from streams.campaigns.enter import started
from streams.campaigns.trigger import Campaign
from streams.codec import pack
from streams.profiles.row import User
from streams.records import Record
from streams.workspace import Workspace
from tables.store import Store
from tests.agents.crashes import die, kill_at, replace
from tests.agents.mailbox_logs import PARTITIONS, told


class Plan(msgspec.Struct):
    """What one process does: how it cuts the log, when it dies (see `crashes`), and which fault it has."""

    folder: str
    clock: str
    slice_records: int = 2_000
    effects_max: int = users_agent.EFFECTS_MAX
    rows_max: int = users_agent.ROWS_MAX
    die: str = ""
    fault: str = ""


def plant_clock() -> None:
    """A rule reads the time: it stands in the row as the time of the last decision."""
    _spoil_timers(lambda now_ms: now_ms + time.perf_counter_ns() % 7)


def plant_random() -> None:
    """A rule throws dice: a timer is now and then decided a millisecond late."""
    _spoil_timers(lambda now_ms: now_ms + random.randrange(2))


def _spoil_timers(spoil: Callable[[int], int]) -> None:
    real = users.decide_timer

    def decide(user: User, user_key: str, now_ms: int, workspace: Workspace) -> users.Effects:
        return real(user, user_key, spoil(now_ms), workspace)

    replace(users, "decide_timer", decide)


def plant_set() -> None:
    """A rule goes through a set: campaigns that start together come in the order of their hashes."""

    def unordered(*arguments: Any) -> list[Campaign]:
        found = {campaign.name: campaign for campaign in started(*arguments)}
        return [found[name] for name in {*found}]

    replace(users, "started", unordered)


def plant_torn() -> None:
    """A commit in two halves, outputs first, and a crash between those of the tenth."""
    whole: Callable[..., Awaitable[None]] = EmbeddedTransport.commit
    left = 10

    async def torn(self: EmbeddedTransport, *args: Any) -> None:
        nonlocal left
        *before, batch, outputs = args
        await whole(self, *before, self.batch(), outputs)
        left -= bool(outputs)
        if not left:
            die()
        await whole(self, *before, batch, [])

    replace(EmbeddedTransport, "commit", torn)


def plant_slice() -> None:
    """State that lives no longer than a slice: the first letter of each finds the clock where it was not left."""
    real = Users.handle

    async def handle(self: Users, piece: Slice) -> None:
        self.folds[piece.partition].position.clock_ms += 1
        await real(self, piece)

    replace(Users, "handle", handle)


FAULTS = {
    "clock": plant_clock,
    "random": plant_random,
    "set": plant_set,
    "slice": plant_slice,
    "torn": plant_torn,
}


async def fold_to_the_end(plan: Plan) -> None:
    """Open the folder, fold whatever its state has not folded, and close it."""
    data = Path(plan.folder)
    names = {"DATA": plan.folder, "CLOCK": plan.clock, "PARTITIONS": str(PARTITIONS), "HTTP": ""}
    settings = load_settings({f"HEADRACE_{name}": value for name, value in names.items()})
    store = Store(data / "db")
    engine = Engine(settings, SystemClock(), store, data / "faust")
    workspaces = Workspaces(engine.transport)
    await workspaces.load()
    engine.register(Users(engine, workspaces))
    await engine.start()
    await engine.ready()
    assert engine.failure is not None
    while any(engine.slices.lag().values()):
        if engine.failure.done():
            raise engine.failure.result()
        await asyncio.sleep(0.005)
    assert await engine.stop()
    (data / "told").write_bytes(pack(told(store)))
    store.close()


async def append_nothing(self: Users) -> None:
    """Instead of telling partitions of the newest workspace: the log is given, and grows no more."""


def main(plan: Plan) -> None:
    """Cut, spoil and kill as planned, then fold."""

    def read(self: EmbeddedTransport, topic: str, partition: int, offset: int) -> list[Record]:
        return self._log.read(topic, partition, offset, plan.slice_records)

    replace(EmbeddedTransport, "read", read)
    replace(Users, "switch", append_nothing)
    replace(users_agent, "EFFECTS_MAX", plan.effects_max)
    replace(users_agent, "ROWS_MAX", plan.rows_max)
    if plan.fault:
        FAULTS[plan.fault]()
    if plan.die:
        kill_at(plan.die)
    asyncio.run(fold_to_the_end(plan))


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Plan))
