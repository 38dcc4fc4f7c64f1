"""A fleet's session: several workers on one app, fed all the time, brought to rest at the end and verified."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from agents.fleet import MERGES
from streams.errors import HeadraceError
from tests.channels.mail_server import MailServer, mail_server
from tests.channels.test_http import Endpoint, serving
from tests.chaos.fleet.members import Member, Nursery, nursing
from tests.chaos.fleet.sends import TOPICS, hold_sends
from tests.chaos.outputs import read_topic
from tests.chaos.session import GONE, SETTLE_ALL_S_MAX, SETTLE_BUG_S_MAX, SETTLE_S_MAX, Session
from tests.chaos.verifier import Found, Verdict, verify

PARTITIONS = 4
SESSION_S = 6.0
LOAD_S = 0.15
LOOK_S = 0.1
WHOLE_S_MAX = 90.0
GATHER_S_MAX = 60.0
SENT_S_MAX = 120
MAIL_IDLE_S = 3.0
"""A server's patience with a silent client: shorter than a worker is frozen, so that no half mail is finished later."""

FENCED = "ProducerFenced"
ERROR = re.compile(r"(\w+(?:Error|Fenced|Failing|State))\b")
ANY_ONE = ("apply", "partitions", "pause", "report")
BASE = ("one", "two")
GUEST = "guest"


class Fleet(Session):
    """Two workers that are meant to run, a guest that comes and goes, and a load that never stops.

    By the seed's parity the two are static members, who keep their partitions over a quick restart; by its half's they
    keep copies of one another's partitions from the start.
    """

    def __init__(
        self, folder: Path, seed: int, mail: MailServer, hooks: Endpoint, broker: str, bug: str, nursery: Nursery
    ) -> None:
        super().__init__(folder, seed, mail, hooks, broker, bug)
        self.partitions = PARTITIONS
        self.members = {name: Member(nursery, name, folder, self._order(name, seed)) for name in (*BASE, GUEST)}
        for member in self.members.values():
            member.standby = bool(seed // 2 % 2)
        self.settled: dict[str, bool] = {}
        self.faults: list[str] = []
        self.slowest_s = 0.0
        self.is_hushed = False
        self._loading = True
        self.loading: asyncio.Task[None] | None = None

    def _order(self, name: str, seed: int) -> dict[str, Any]:
        own = {"PARTITIONS": str(PARTITIONS), "MEMBER": f"{self.app}-{name}" if seed % 2 and name != GUEST else ""}
        environment = {**self.environment, **{f"HEADRACE_{key}": value for key, value in own.items()}}
        return {"arguments": ["worker"], "environment": environment, "bug": self.bug}

    @property
    def ends(self) -> list[str]:
        """How workers ended by themselves."""
        return [end for member in self.members.values() for end in member.ends]

    @property
    def reasons(self) -> list[str]:
        """The errors by which they ended, in a word each."""
        return [(ERROR.findall(end) or ["unknown"])[-1] for end in self.ends]

    # ---- asking and feeding

    async def ask(self, command: str, **arguments: Any) -> Any:
        """A control command's answer, merged from all that answer; raises one of GONE when one does not."""
        asked = [member for member in self.members.values() if member.answers]
        if not asked:
            raise ConnectionError("no worker lives")
        if command in ANY_ONE:
            return await self._any_one(asked, command, arguments)
        answers, errors = [], []
        for member in asked:
            try:
                answers.append(await member.ask(command, arguments))
            except HeadraceError as error:
                errors.append(error)
        if not answers:
            raise errors[0]
        return MERGES[command](answers)

    async def _any_one(self, asked: list[Member], command: str, arguments: dict[str, Any]) -> Any:
        for member in asked[:-1]:
            with suppress(OSError, TimeoutError):
                return await member.ask(command, arguments)
        return await asked[-1].ask(command, arguments)

    async def _produce(self, events: list[dict[str, Any]]) -> None:
        """Whoever produces waits as long as the brokers need, and never asks a worker."""
        producer, failed = self._producer, list[Any]()
        assert producer is not None
        for event in events:
            producer.produce(
                f"{self.app}.events",
                json.dumps(event).encode(),
                self.work.key_of(event).encode(),
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        if await asyncio.to_thread(producer.flush, SENT_S_MAX) or failed:
            raise AssertionError(f"the brokers refused what we sent: {failed}")

    async def load(self) -> None:
        """Feed until told to end, whatever happens to the workers."""
        while self._loading:
            with suppress(*GONE):
                if not self.is_hushed:
                    await self.feed()
                    await self.casting.go_on()
            await asyncio.sleep(LOAD_S)

    # ---- looking

    async def until(self, what: str, holds: Callable[[dict[str, Any]], bool], seconds: float = WHOLE_S_MAX) -> bool:
        """Wait until a merged `progress` is as wanted; False, and a fault, if it is not in time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            with suppress(*GONE):
                if holds(await self.ask("progress")):
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                    return True
            await asyncio.sleep(LOOK_S)
        said = {name: member.last_words() for name, member in self.members.items() if member.answers}
        self.faults.append(f"not {what} after {seconds:.0f} s: {said}")
        return False

    async def whole(self) -> bool:
        """Wait until those that live hold every partition between them, each once."""
        every = list(range(PARTITIONS))
        return await self.until("whole", lambda found: found["partitions"] == every)

    async def still(self) -> bool:
        """Wait, under no load, until nothing is under way; False, and a fault, if it does not come."""
        deadline = time.monotonic() + SETTLE_S_MAX
        while not await self._is_still():
            if time.monotonic() > deadline:
                self.faults.append(f"not still after {SETTLE_S_MAX:.0f} s without load")
                return False
            await asyncio.sleep(LOOK_S)
        return True

    async def pause(self, *, paused: bool) -> None:
        """Pause or resume everything, and wait until that is in force in every partition."""
        version = max([0, *(row["version"] for row in await self.ask("scans"))])
        await self.ask("pause", campaign="*", paused=paused)
        deadline = time.monotonic() + WHOLE_S_MAX
        while time.monotonic() < deadline:
            with suppress(*GONE):
                await self.ask("reload")
                rows = await self.ask("scans")
                if len(rows) == PARTITIONS and all(row["version"] > version for row in rows):
                    return
            await asyncio.sleep(LOOK_S)
        self.faults.append(f"{paused=} was not in force everywhere after {WHOLE_S_MAX:.0f} s")

    async def settle_held(self) -> None:
        """What an operator does with held mails: ask the mail server, discard what it took, release the rest."""
        with suppress(*GONE):
            held = await self.ask("dispatches", state="held")
            taken = b"".join(content for _, _, content in self.mail.taken)
            for name in [each["dispatch_id"] for each in held]:
                was_taken = name.encode() in taken
                await self.ask("discard" if was_taken else "release", dispatch_id=name)
                self.settled[name] = was_taken

    # ---- the end

    async def rest(self) -> Verdict:
        """Let everything come to rest, with the two workers and no guest, stop them, and verify."""
        self.casting.hush()
        await self._let_all_rest()
        await self._until_rest()
        found = Found(self.calls, [], self.folder / "exports")
        if not await self._gather(found):
            said = {name: self.members[name].last_words() for name in BASE}
            return Verdict(faults=[*self.faults, f"the fleet does not answer: {said}"])
        for name in BASE:
            await self.stop(self.members[name])
        found.mails = [content for _, _, content in self.mail.taken]
        for row in found.dispatches:  # what the operator discarded had been accepted, and was held
            if row["reason"] == "discarded" and self.settled.get(row["dispatch_id"]):
                row["state"] = "held"
        for topic in ("currents", "segment-changes", *TOPICS.values()):
            found.topics[topic] = await asyncio.to_thread(read_topic, self.broker, f"{self.app}.{topic}")
        verdict = verify(self.work, found)
        hold_sends(self.work, found.topics, verdict)
        verdict.faults += self.faults
        return verdict

    async def _gather(self, found: Found) -> bool:
        """Ask for everything, while the same workers hold all partitions; False if that cannot be had."""
        deadline = time.monotonic() + GATHER_S_MAX
        while time.monotonic() < deadline:
            with suppress(*GONE):
                if not await self._is_held():
                    continue
                await self.gather(found)
                if await self._is_held():
                    return True
            await asyncio.sleep(LOOK_S)
        return False

    async def _is_held(self) -> bool:
        return bool((await self.ask("progress"))["partitions"] == list(range(PARTITIONS)))

    async def stop(self, member: Member) -> None:
        """Tell a worker to stop, which it has to do in good order, unless another has its place already."""
        code = await member.end(signal.SIGTERM)
        if code == -signal.SIGTERM and not member.last_words():
            return  # it was told so early that it had not come to listen for signals, nor to anything else
        if code:
            words = f"{member.name} was told to stop, and ended with {code}: {member.last_words()}"
            (member.ends if FENCED in words else self.faults).append(words)

    async def _let_all_rest(self) -> None:
        self._loading = False
        assert self.loading is not None
        await self.loading  # two that feed would offer the same twice
        for member in self.members.values():
            member.signal(signal.SIGCONT)
        guest = self.members[GUEST]
        if guest.lives:
            await self.stop(guest)
        for name in BASE:
            if not self.members[name].lives:
                await self.members[name].start()
        await self.whole()

    async def _until_rest(self) -> None:
        """Wait until everything is at rest, or nothing has come for long."""
        patience_s = SETTLE_BUG_S_MAX if self.bug else SETTLE_S_MAX
        began, seen = time.monotonic(), -1
        deadline = began + patience_s
        while time.monotonic() < min(deadline, began + SETTLE_ALL_S_MAX):
            with suppress(*GONE):
                if self._again:
                    await self.feed()
            if await self._is_applied() and not self._again and await self._is_still():
                return
            arrived = len(self.calls) + len(self.mail.taken)
            if arrived != seen:
                seen, deadline = arrived, time.monotonic() + patience_s
            await asyncio.sleep(LOOK_S)
        self.faults.append("the fleet did not come to rest: nothing that could be seen happened for a long time")

    async def _is_still(self) -> bool:
        with suppress(*GONE):
            return await self._is_held() and await super()._is_still()
        return False


def counted(names: list[str]) -> str:
    """Equal lines once, with how often."""
    return "; ".join(f"{count} × {name}" for name, count in Counter(names).most_common())


@asynccontextmanager
async def fleet_session(folder: Path, seed: int, broker: str, bug: str = "") -> AsyncIterator[Fleet]:
    """A fleet of two that is whole and under load; all of it is gone at the end."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    async with mail_server(timeout=MAIL_IDLE_S) as mail, serving() as hooks, nursing() as nursery:
        fleet = Fleet(folder, seed, mail, hooks, broker, bug, nursery)
        for name in BASE:
            await fleet.members[name].start()
        tasks = [asyncio.create_task(member.mind()) for member in fleet.members.values()]
        await fleet.whole()
        fleet.loading = asyncio.create_task(fleet.load())
        tasks.append(fleet.loading)
        try:
            yield fleet
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
