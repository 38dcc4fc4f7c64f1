"""A session: one data folder, real mail and web servers, and a product that is started, fed and killed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from confluent_kafka import Producer

from agents.web.control import ControlClient
from config.workspace import read_workspace
from streams.definitions import read_definitions
from streams.errors import HeadraceError
from tests.channels.mail_server import MailServer, mail_server
from tests.channels.test_http import Endpoint, serving
from tests.chaos.casting import Casting
from tests.chaos.devices import may_repeat
from tests.chaos.outputs import read_topic
from tests.chaos.tracked import KEY, URL
from tests.chaos.verifier import Found, Verdict, verify
from tests.chaos.workload import Workload

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
PART = 12
PART_S = 0.05
FLUSH_EVERY = 4
START_S_MAX = 60.0
LIFE_S = {"embedded": 6.0, "kafka": 15.0}  # from the first answer on
STOP_AFTER_S = 0.4
SETTLE_S_MAX = 280.0  # without an arrival: a call that got no answer three times is made again after 256 s
SETTLE_ALL_S_MAX = 600.0
SETTLE_BUG_S_MAX = 25.0
ANSWER_S = 10.0
CAST_S = 1.0  # behind the moment of a scheduled campaign, for a tick to come
GONE = (OSError, EOFError, HeadraceError, TimeoutError)


class Subject:
    """The forking process of `subject.py`, and the life that it has now."""

    def __init__(self, session: Session, process: asyncio.subprocess.Process) -> None:
        self._session = session
        self._process = process
        self._ending: asyncio.Task[int] | None = None
        self.pid = 0

    async def start(self, point: str = "", call: int = 1, inside: str = "", http: str = "") -> None:
        """Begin a life, to be killed at that call of the point; `inside` names a fault that comes from within.

        `http` is where it serves its status; nowhere if empty.
        """
        session = self._session
        session.mark.unlink(missing_ok=True)
        session.acknowledged.clear()
        order = {
            "environment": session.environment | {"HEADRACE_HTTP": http},
            "arguments": ["worker" if session.broker else "run"],
            "transport": session.transport,
            "point": point,
            "call": call,
            "mark": str(session.mark),
            "bug": session.bug,
            "inside": inside,
            "seed": session.dice.randrange(1 << 32),
            "folder": str(session.folder),
            "log": str(session.folder / "log"),
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = await self._line()
        self._ending = asyncio.create_task(self._line())

    async def _line(self) -> int:
        assert self._process.stdout is not None
        return int(await self._process.stdout.readline())

    @property
    def has_ended(self) -> bool:
        """Whether the life is over."""
        return self._ending is None or self._ending.done()

    async def end(self, number: signal.Signals, timeout_s: float = 20.0) -> int:
        """Send a signal, and return the exit code; one that does not end is killed."""
        assert self._ending is not None
        self.signal(number)
        done, _ = await asyncio.wait([self._ending], timeout=timeout_s)
        if not done:
            self.signal(signal.SIGKILL)
        return await self._ending

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to a life that is over it is nothing."""
        if not self.has_ended:
            with suppress(ProcessLookupError):  # over, and not told yet
                os.kill(self.pid, number)


class Session:
    """Feeds a workload to one product, through as many of its lives as wanted."""

    def __init__(self, folder: Path, seed: int, mail: MailServer, hooks: Endpoint, broker: str, bug: str) -> None:
        self.folder, self.mail, self.hooks, self.broker, self.bug = folder, mail, hooks, broker, bug
        self.transport = "kafka" if broker else "embedded"
        self.partitions = PARTITIONS
        self.work = Workload(seed)
        self.dice = random.Random(seed)
        self.mark = folder / "mark"
        self.app = f"chaos-{zlib.crc32(folder.name.encode())}-{os.getpid()}"
        self.calls: list[tuple[float, str, bytes]] = []
        self.acknowledged: list[tuple[float, list[dict[str, Any]]]] = []
        self._again: list[dict[str, Any]] = self.work.arrivals()
        self._parts = self._read = 0
        self.casting = Casting(self)
        self.write_workspace()
        hooks.answer = self._answer
        self._producer = (
            Producer({"bootstrap.servers": broker, "enable.idempotence": True, "log_level": 2}) if broker else None
        )

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def write_workspace(self) -> None:
        """The definitions as they stand, for the next life or for `apply`."""
        self.work.write_workspace(self.folder / "workspace")

    @property
    def environment(self) -> dict[str, str]:
        """What a life finds in its environment."""
        ours = {
            "APP": self.app,
            "BROKER": f"kafka://{self.broker}" if self.broker else "embedded://",
            "DATA": str(self.data),
            "WORKSPACE": str(self.folder / "workspace"),
            "HTTP": "",
            "PARTITIONS": str(PARTITIONS),
            "SMTP": f"smtp://127.0.0.1:{self.mail.port}",
            "WEBHOOK_URL": self.hooks.url + "/hook",
            "HTTP_ALLOW": "127.0.0.1/32",
            "SESSION_S": "6",
            "EXPORTS": f"file://{self.folder / 'exports'}",
            "MEMBER": self.app if self.broker else "",
            "TRACKING_URL": URL,
            "SIGNING_KEY": KEY,
        }
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        return rest | {f"HEADRACE_{name}": value for name, value in ours.items() if value or name == "HTTP"}

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take the call; now and then refuse it for a second, or take it and let the connection drop."""
        key, body = request.headers["Idempotency-Key"], await request.read()
        self.calls.append((time.time(), key, body))
        await asyncio.sleep(self.dice.random() * 0.01)
        chance = self.dice.random()
        if chance < 0.03:
            return web.Response(status=self.dice.choice((429, 500, 503)), headers={"Retry-After": "1"})
        return web.Response()

    # ---- feeding

    async def ask(self, command: str, **arguments: Any) -> Any:
        """A control command's answer; raises one of GONE when there is none."""
        async with asyncio.timeout(ANSWER_S):
            client = await ControlClient.connect(self.data)
            try:
                return await client.ask(command, arguments)
            finally:
                client.close()

    async def feed(self, count: int = PART) -> None:
        """Offer a part; what is not acknowledged is offered again, except what has no id."""
        for _, _, content in self.mail.taken[self._read :]:
            self.work.readers.read(content)
        self._read = len(self.mail.taken)
        events = self._again or self.work.part(count)
        self.work.offered(events)
        self._again = events
        try:
            await (self._produce(events) if self._producer else self._append(events))
        except GONE:
            self.work.told(events, acknowledged=False)
            self._again = [event for event in events if may_repeat(event)]
            raise
        self.work.told(events, acknowledged=True)
        self.acknowledged.append((time.time(), events))
        self._again = []
        self._parts += 1
        if not self._parts % FLUSH_EVERY:
            await self.ask("flush")

    def doubt_after(self, seconds: float) -> None:
        """What this life acknowledged after that time may be gone: offer it again, except what has no id."""
        doubted = [event for acked_s, events in self.acknowledged if acked_s >= seconds for event in events]
        self.work.told(doubted, acknowledged=False)
        self.work.casts.doubt_after(seconds)
        self._again = [event for event in doubted if may_repeat(event)] + self._again

    async def _append(self, events: list[dict[str, Any]]) -> None:
        rows = []
        for event in events:
            key, value = self.work.key_of(event).encode(), json.dumps(event).encode()
            place = zlib.crc32(key) % PARTITIONS
            rows.append(["events", place, base64.b64encode(key).decode(), base64.b64encode(value).decode()])
        await self.ask("append", outputs=rows)

    async def _produce(self, events: list[dict[str, Any]]) -> None:
        await self.ask("partitions")  # the topics are there once a worker answers
        producer = self._producer
        assert producer is not None
        failed: list[Any] = []
        for event in events:
            key, value = self.work.key_of(event).encode(), json.dumps(event).encode()
            producer.produce(
                f"{self.app}.events", value, key, on_delivery=lambda error, _: failed.append(error) if error else None
            )
        if await asyncio.to_thread(producer.flush, 30) or failed:
            raise AssertionError(f"the broker refused what we sent: {failed}")

    async def apply(self) -> int:
        """Apply the definitions as they stand; it changes nothing if they are in force. Returns their version."""
        found = read_definitions(read_workspace(self.folder / "workspace"))
        answer = await self.ask("apply", definitions=msgspec.to_builtins(found))
        return int(answer["version"])

    # ---- lives

    async def live(self, subject: Subject, point: str, call: int, *, stops: bool) -> bool:
        """One life that is to end at a crash point; True if it did."""
        scans, fans = point.startswith("scan"), point.startswith("fanout")
        if scans:  # on the embedded log the start applies it
            self.work.extra_at += 1
            self.write_workspace()
        await subject.start(point, call)
        deadline, stop_at = time.monotonic() + START_S_MAX, 0.0
        while not subject.has_ended and time.monotonic() < deadline:
            try:
                await self.feed()
                if scans and self.broker:
                    await self.apply()
                await self.casting.go_on(at_once=fans)
            except GONE:
                await asyncio.sleep(0.02)
                continue
            if not stop_at:
                stop_at = time.monotonic() + STOP_AFTER_S
                deadline = time.monotonic() + LIFE_S[self.transport]
            if stops and time.monotonic() > stop_at:
                await subject.end(signal.SIGTERM)
            await asyncio.sleep(PART_S)
        await subject.end(signal.SIGKILL)
        return self.mark.exists()

    async def verdict(self, subject: Subject) -> Verdict:
        """Let everything come to rest in a last life, and verify it."""
        await subject.start()
        self.casting.hush()
        found = Found(self.calls, [], self.folder / "exports")
        try:
            has_settled = await self._settle(subject)
            await self.gather(found)
        except GONE as error:
            log = await asyncio.to_thread((self.folder / "log").read_text, "utf-8", "replace")
            return Verdict(faults=[f"the product does not answer ({error!r}): {log[-600:]}"])
        finally:
            await subject.end(signal.SIGTERM)
        found.mails = [content for _, _, content in self.mail.taken]
        for topic in ("currents", "segment-changes") if self.broker else ():
            found.topics[topic] = await asyncio.to_thread(read_topic, self.broker, f"{self.app}.{topic}")
        verdict = verify(self.work, found)
        if not has_settled:
            verdict.fault("it did not come to rest: nothing that could be seen happened for a long time")
        return verdict

    async def gather(self, found: Found) -> None:
        """Ask for everything that the verifier wants to know of the product itself."""
        await self.ask("flush")
        found.users = {key: await self._user(key) for key in self.work.rows}
        found.dispatches = await self.ask("dispatches")
        found.totals = await self.ask("totals")
        for row in await self.ask("report"):
            name = row["campaign"]
            for unit in ("hour", "day"):
                found.reports[name, unit] = await self.ask("report", campaign=name, unit=unit)

    async def _settle(self, subject: Subject) -> bool:
        """Wait until everything is at rest; False if nothing more comes before it is."""
        patience_s = SETTLE_BUG_S_MAX if self.bug else SETTLE_S_MAX
        began, seen = time.monotonic(), -1
        deadline = began + patience_s
        while not subject.has_ended and time.monotonic() < min(deadline, began + SETTLE_ALL_S_MAX):
            with suppress(*GONE):
                if self._again:
                    await self.feed()
            if await self._is_applied() and not self._again and await self._is_still():
                return True
            arrived = len(self.calls) + len(self.mail.taken)
            if arrived != seen:
                seen, deadline = arrived, time.monotonic() + patience_s
            await asyncio.sleep(0.1)
        return False

    async def _user(self, user: str) -> dict[str, Any]:
        with suppress(HeadraceError):
            found = await self.ask("user", external_id=user)
            if found is not None:  # of a fleet, nobody knows the user
                return dict(found)
        return {"events": {}, "attributes": {}, "segments": {}, "campaigns": {}}

    async def _is_applied(self) -> bool:
        """Whether the newest definitions are in force, and built, everywhere."""
        try:
            await self.apply()
            return all(row["state"] == "current" for row in await self.ask("scans"))
        except GONE:
            return False

    async def _is_still(self) -> bool:
        """Whether nothing is under way, and all that is wanted has come or cannot come any more."""
        try:
            found = [await self.ask("progress") for _ in range(2)]
        except GONE:
            return False
        if found[0] != found[1] or not found[0]["idle"] or found[0]["behind"] or self._again or self.is_casting:
            return False
        wanted = self.work.wanted("go") + self.work.wanted("later")
        arrived = self.work.persons(body.decode() for _, _, body in self.calls)
        return not set(wanted) - set(arrived) and await self._is_sent()

    @property
    def is_casting(self) -> bool:
        """Whether a scheduled campaign is still to come round."""
        return time.time() < self.work.casts.last_s + CAST_S

    async def _is_sent(self) -> bool:
        """Whether of every message it is decided what became of it."""
        try:
            dispatches = await self.ask("dispatches")
        except GONE:
            return False
        return all(each["final"] or each["state"] == "held" for each in dispatches)


@asynccontextmanager
async def session(folder: Path, seed: int, broker: str = "", bug: str = "") -> AsyncIterator[tuple[Session, Subject]]:
    """A session and its subject; both are gone at the end."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    async with mail_server() as mail, serving() as hooks:
        one = Session(folder, seed, mail, hooks, broker, bug)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.subject"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        subject = Subject(one, process)
        try:
            yield one, subject
        finally:
            subject.signal(signal.SIGKILL)
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()
