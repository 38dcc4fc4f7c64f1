"""A delivery agent on a real store and log, with users, a workspace and providers that a test steers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.definitions import Workspaces
from agents.delivery.agent import Delivery
from agents.engine.engine import Engine
from agents.engine.slices import Slice
from channels.channel import Limits, Provider, Receipt, Request
from config.clock import ManualClock
from config.settings import Settings
from streams.codec import to_json
from streams.definitions import read_definitions
from streams.mailbox import Outcome, decode_letter
from streams.profiles.row import encode_row, new_user
from streams.records import Record
from streams.sends import Lane, Send
from streams.topics import sends_topic
from tables.dispatches import Dispatch
from tables.store import Store

START_MS = 1_800_000_000_000
FILES: dict[str, Any] = {
    f"campaigns/{channel}.yaml": {
        "name": channel,
        "trigger": {"event": {"name": "go"}},
        "channel": channel,
        "message": message,
    }
    for channel, message in {
        "email": {"to": "{{ ${email_address} }}", "subject": "Hi", "text": "Hello {{ ${user_id} }}"},
        "webhook": {"url": "https://{{ ${home_city} }}/", "body": "{{ ${user_id} }}"},
        "log": {"text": "{{ ${user_id} }}"},
    }.items()
}


class Steered:
    """A provider that keeps what it is asked for, and answers as told: at once, when let go, or never."""

    name = "steered"

    def __init__(self, in_flight: int = 8, per_host: int = 8, at_once: int = 8) -> None:
        self.limits = Limits(in_flight, per_host, at_once)
        self.asked: list[Request] = []
        self.answer: Callable[[Request], Receipt] = lambda request: Receipt(request.dispatch_id, "sent")
        self.hangs: Callable[[Request], bool] = lambda request: False
        self.running = 0
        self.most = 0
        self.settled: list[str] = []

    async def attempt(self, request: Request) -> Receipt:
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while self.hangs(request):  # noqa: ASYNC110 - a test may set `hangs` to anything
                await asyncio.sleep(0.001)
            return self.answer(request)
        finally:
            self.running -= 1

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        self.settled += [request.dispatch_id for request in requests]
        return [self.answer(request) for request in requests]

    async def close(self) -> None:
        return


class Rig:
    """One partition of a delivery agent, opened and closed by hand."""

    def __init__(self, folder: Path, providers: dict[str, Steered]) -> None:
        self.settings = Settings(data=folder, partitions=1)
        self.clock = ManualClock(START_MS)
        self.store = Store(folder / "db")
        self.engine = Engine(self.settings, self.clock, self.store, folder / "faust")
        self.workspaces = Workspaces(self.engine.transport)
        self.providers = providers
        self.offset = 0

    async def start(self) -> None:
        self.engine.failure = asyncio.get_running_loop().create_future()
        await self.workspaces.load()
        await self.workspaces.apply(read_definitions(FILES))
        await self.open()

    async def open(self) -> None:
        providers: dict[str, Provider] = dict(self.providers)
        self.delivery = Delivery(self.engine, self.workspaces, providers)
        await self.delivery.open(0)

    async def close(self) -> None:
        await self.delivery.stop()
        await self.delivery.close(0)

    def user(self, name: str, **attributes: Any) -> None:
        """Write a user's row, as the users agent would have."""
        row = new_user(START_MS)
        row.attributes = attributes
        batch = self.store.batch()
        batch.put("users", b"\0\0" + name.encode(), encode_row(row))
        self.store.write(batch)

    def send(
        self,
        number: int,
        channel: str = "email",
        host: str = "a.example",
        user: str = "ann",
        lane: Lane = "transactional",
    ) -> Send:
        """A decided send."""
        profile: dict[str, Any] = {"email_address": f"{user}@b.c", "home_city": host}
        version = self.workspaces.latest_version
        return Send(f"{number:032x}", channel, channel, user, version, START_MS, profile, {}, {}, lane=lane)

    async def record(self, *sends: Send) -> None:
        """Hand a slice of sends to the agent, and wait until it is finished."""
        records = [Record(self.offset + at, START_MS, b"", to_json(send)) for at, send in enumerate(sends)]
        self.offset += len(sends)
        await self.delivery.handle(Slice(sends_topic(sends[0].channel, sends[0].lane), 0, records, self.offset))

    async def until(self, holds: Callable[[], object]) -> None:
        """Let the agent run until something holds; raises what stopped the agent."""
        while not holds():
            assert self.engine.failure is not None
            if self.engine.failure.done():
                raise self.engine.failure.result()
            await asyncio.sleep(0.002)

    @property
    def states(self) -> dict[str, int]:
        """How many dispatches are in each state, over all campaigns."""
        found: dict[str, int] = {}
        for by_state in self.delivery.dispatches[0].counts.values():
            for state, count in by_state.items():
                found[state] = found.get(state, 0) + count
        return {state: count for state, count in found.items() if count}

    def dispatch(self, number: int) -> Dispatch:
        return next(each for each in self.delivery.dispatches[0].all() if each.dispatch_id == f"{number:032x}")

    @property
    def outcomes(self) -> list[Outcome]:
        """What the mailbox was told, in order."""
        found = []
        offset = 0
        while records := self.engine.transport.read("mailbox", 0, offset):
            letters = [decode_letter(record.value) for record in records]
            found += [letter for letter in letters if isinstance(letter, Outcome)]
            offset = records[-1].offset + 1
        return found


@asynccontextmanager
async def delivering(folder: Path, **providers: Steered) -> AsyncIterator[Rig]:
    """A started rig; providers that are not named answer at once."""
    rig = Rig(folder, {"email": Steered(), "webhook": Steered(), "log": Steered(), **providers})
    rig.user("ann")
    await rig.start()
    try:
        yield rig
    finally:
        for provider in rig.providers.values():
            provider.hangs = lambda request: False
        await rig.close()
        rig.store.close()
