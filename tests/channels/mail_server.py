"""A real SMTP server (aiosmtpd) that misbehaves as it is told, one mail at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

Authenticator = Callable[[SMTP, Session, Envelope, str, object], AuthResult]


class MailServer:
    """What was taken, and what to do with the next mails: `faults` maps a recipient's local part to a fault.

    `rcpt-550` and the like answer that command with that code; `rcpt-drop`, `data-drop` and `end-drop` cut
    the connection at RCPT, after DATA's 354 and after the whole mail was taken; `hang` says nothing after it, and
    `rcpt-hang` nothing to RCPT.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[str, str, bytes]] = []
        self.port = 0
        self.connections = 0
        self.servers: list[SMTP] = []
        self.hanging: list[asyncio.Event] = []
        self.answers_after_s = 0.0
        self.has_taken = asyncio.Event()

    def fault(self, address: str) -> str:
        return address.partition("@")[0].partition("+")[0]

    def drop(self, server: SMTP) -> None:
        assert isinstance(server.transport, asyncio.Transport)
        server.transport.abort()

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("mail-"):
            return f"{address[5:8]} no"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        fault = self.fault(address)
        if fault == "rcpt-drop":
            self.drop(server)
        elif fault == "rcpt-hang":
            self.hanging.append(asyncio.Event())
            await self.hanging[-1].wait()
        elif fault.startswith("rcpt-"):
            return f"{fault[5:8]} 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        (address,) = envelope.rcpt_tos
        fault = self.fault(address)
        if fault.startswith(("end-4", "end-5")):
            return f"{fault[4:7]} not now"
        if fault == "data-drop":
            self.drop(server)
            return "451 gone"
        assert isinstance(envelope.content, bytes)
        self.taken.append((str(envelope.mail_from), address, envelope.content))
        self.has_taken.set()
        if fault == "end-drop":
            self.drop(server)
        await asyncio.sleep(self.answers_after_s)
        if fault == "hang":
            self.hanging.append(asyncio.Event())
            await self.hanging[-1].wait()
        return "250 OK"


@asynccontextmanager
async def mail_server(**options: Any) -> AsyncIterator[MailServer]:
    """Serve on loopback in this loop."""
    handler = MailServer()

    def make() -> SMTP:
        handler.connections += 1
        server = SMTP(handler, hostname="mail.test", enable_SMTPUTF8=False, loop=loop, **options)
        handler.servers.append(server)
        return server

    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", 0)
    handler.port = server.sockets[0].getsockname()[1]
    try:
        yield handler
    finally:
        server.close()
        for event in handler.hanging:
            event.set()
        for each in handler.servers:
            if isinstance(each.transport, asyncio.Transport):
                each.transport.abort()
        tasks = [each._handler_coroutine for each in handler.servers if each._handler_coroutine is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # let the aborted connections close


def only(user: bytes, password: bytes) -> Authenticator:
    """An authenticator that lets one user in."""

    def check(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        assert isinstance(data, LoginPassword)
        return AuthResult(success=(data.login, data.password) == (user, password), handled=False)

    return check
