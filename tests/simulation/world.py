"""The world outside: an HTTP endpoint and a mail server that fail as their seed says, and remember everything."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from typing import Any

import aiosmtplib
from yarl import URL

from channels.addresses import Guard
from channels.http import Answer, NoAnswer, Proof
from tests.simulation.loop import Killed, Process, VirtualLoop

HANG_S = 30.0
ANSWER_S = 0.05
_MAIL_ID = re.compile(rb"^X-Headrace-Dispatch: ([0-9a-f]{32})", re.MULTILINE)


class World:
    """What endpoints got. `trouble` is the chance that one request goes wrong; `down` refuses every one."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.trouble = 0.0
        self.down = False
        self.calls: defaultdict[str, list[tuple[float, str, bytes, tuple[tuple[str, str], ...]]]] = defaultdict(list)
        self.mails: defaultdict[str, list[tuple[float, bytes]]] = defaultdict(list)

    def goes_wrong(self) -> bool:
        return self.down or self.loop.dice.random() < self.trouble

    async def delay(self, most_s: float = ANSWER_S) -> None:
        await asyncio.sleep(self.loop.dice.random() * most_s)


class Endpoint:
    """Stands where `channels.http.HttpClient` does: takes calls, or not, and answers, or not."""

    def __init__(self, world: World) -> None:
        self.guard = Guard([])
        self._world = world
        self._process = Process.current()

    async def request(
        self, method: str, url: URL, headers: dict[str, str], body: bytes, proof: Proof | None = None
    ) -> Answer:
        world, dice = self._world, self._world.loop.dice
        if self._process is not None and not self._process.alive:
            raise Killed("a call after death")
        name = headers["Idempotency-Key"]
        world.loop.trace("call", name, len(world.calls[name]))
        fault = dice.choice(("refused", "hang", "late", "500", "429", "400")) if world.goes_wrong() else ""
        if fault != "refused":
            world.calls[name].append((world.loop.time(), f"{method} {url}", body, tuple(sorted(headers.items()))))
        await world.delay()
        if fault == "refused":
            raise NoAnswer("connection_failed: ClientConnectorError")
        if fault in ("hang", "late"):
            await asyncio.sleep(HANG_S if fault == "hang" else 1.0)
            raise NoAnswer("timeout: no answer in time")
        if fault:
            return Answer(int(fault), fault, b"no", 0.5 if fault == "429" else None)
        return Answer(200, "OK", b"")

    async def close(self) -> None:
        return


class _Protocol:
    """The connection under an SMTP client, from the mail's first byte on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._mail = b""
        self._fault = ""
        self.is_connected = True

    def write(self, data: bytes) -> None:
        world = self._world
        self._mail = data
        self._fault = world.loop.dice.choice(("lost", "dropped", "451", "550")) if world.goes_wrong() else ""
        if self._fault in ("", "dropped"):
            self._take()

    def _take(self) -> None:
        found = _MAIL_ID.search(self._mail)
        assert found is not None, self._mail
        self._world.mails[found[1].decode()].append((self._world.loop.time(), self._mail))
        self._world.loop.trace("mail", found[1].decode())

    async def read_response(self, **kwargs: float) -> Any:
        await self._world.delay()
        if self._fault in ("lost", "dropped"):
            self.is_connected = False
            raise aiosmtplib.SMTPServerDisconnected("gone")
        code = int(self._fault or 250)
        return aiosmtplib.SMTPResponse(code, "no" if self._fault else "taken")


class MailClient:
    """Stands where `aiosmtplib.SMTP` does."""

    world: World
    is_ehlo_or_helo_needed = False

    def __init__(self, **kwargs: object) -> None:
        self._process = Process.current()
        self.protocol: _Protocol | None = None

    async def _step(self) -> None:
        if self._process is not None and not self._process.alive:
            raise Killed("a mail after death")
        await self.world.delay()
        fault = self.world.loop.dice.choice(("gone", "421", "450")) if self.world.goes_wrong() else ""
        if fault == "gone":
            self.close()
            raise aiosmtplib.SMTPServerDisconnected("gone")
        if fault:
            raise aiosmtplib.SMTPResponseException(int(fault), "not now")

    @property
    def is_connected(self) -> bool:
        return self.protocol is not None and self.protocol.is_connected

    async def connect(self, **kwargs: float) -> None:
        await self._step()
        self.protocol = _Protocol(self.world)

    async def execute_command(self, verb: bytes, *words: bytes, timeout: float | None) -> Any:  # noqa: ASYNC109
        if not self.is_connected:
            raise aiosmtplib.SMTPServerDisconnected("gone")
        await self._step()
        return aiosmtplib.SMTPResponse(354 if verb == b"DATA" else 250, "go on")

    async def rset(self, **kwargs: float) -> None:
        await self.world.delay()

    async def quit(self, **kwargs: float) -> None:
        self.close()

    def close(self) -> None:
        if self.protocol is not None:
            self.protocol.is_connected = False
