"""Email over SMTP on kept connections: a mail whose answer is missing is held, never sent again by itself."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import aiosmtplib
from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPReadTimeoutError,
    SMTPResponse,
    SMTPResponseException,
    SMTPServerDisconnected,
)
from aiosmtplib.email import quote_address

from channels.channel import Limits, Receipt, Request
from channels.deadlines import Deadlines
from channels.mime import sender_of
from config.smtp_server import SmtpServer

CONNECTIONS_MAX: Final = 16
IN_FLIGHT_MAX: Final = 64
CONNECT_S: Final = 30.0
ANSWER_S: Final = 60.0
FINAL_ANSWER_S: Final = 300.0
IDLE_S_MAX: Final = 20.0
QUIT_S: Final = 1.0
REASON_CHARS_MAX: Final = 500
_LINE_ENDS: Final = re.compile(rb"\r\n?|\n")
_PLAIN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.-]+")
_DONE: Final = 250
_TAKES_RECIPIENT: Final = (250, 251)
_GO_AHEAD: Final = 354
_UNAVAILABLE: Final = 421
_REFUSED: Final = 500
_ACCEPTED: Final = range(200, 300)
_REPLY: Final = range(200, 600)


class _Refused(Exception):
    """The server said no before the mail was handed over, for now (4xx) or for good."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.receipt = kind, reason


class Smtp:
    """A provider that hands mails to one server.

    | what happens | outcome |
    | --- | --- |
    | the final answer is 2xx | sent, and delivered |
    | no connection, a refused login, 4xx at any point, silence before the mail was sent | retry |
    | 5xx for the recipient or the mail: the reason begins with the code | failed |
    | 5xx for the sender | failed, `sender_refused: …` |
    | the connection is lost or silent after the mail was sent, before its answer | held |
    """

    name = "smtp"
    limits = Limits(IN_FLIGHT_MAX, IN_FLIGHT_MAX, CONNECTIONS_MAX)

    def __init__(
        self,
        server: SmtpServer,
        *,
        final_answer_s: float = FINAL_ANSWER_S,
        sender: Callable[[Request], str] = lambda request: sender_of(request.body),
    ) -> None:
        """Connect as needed; `final_answer_s` is how long an answer to a whole mail may take.

        `sender` gives the envelope's sender, to whom bounces go.
        """
        self._sender = sender
        self._server = server
        self._final_answer_s = final_answer_s
        self._tls: ssl.SSLContext | None = None
        self._kept: list[tuple[SMTP, float]] = []
        self._answers, self._final_answers = Deadlines(), Deadlines()

    async def attempt(self, request: Request) -> Receipt:
        """Hand over one mail, once its server waits for it and it is still ours."""
        name = request.dispatch_id
        try:
            client = await self._ready(self._sender(request), request.address)
        except _Refused as error:
            return Receipt(name, *error.receipt)  # type: ignore[arg-type]
        try:
            if request.proof is not None:  # the server may have taken its time, or this worker have stood still
                await request.proof()
            kind, reason = await self._hand_over(client, request.body)
        except BaseException:
            client.close()
            raise
        return Receipt(name, kind, reason, is_delivered=kind == "sent")  # type: ignore[arg-type]

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Hold all: SMTP has no key by which the server would know a repeat."""
        reason = "uncertain: the worker stopped between attempt and outcome"
        return [Receipt(request.dispatch_id, "held", reason) for request in requests]

    async def close(self) -> None:
        """Say goodbye on the kept connections."""
        kept, self._kept = self._kept, []
        await asyncio.gather(*(_quit(client) for client, _ in kept))
        self._answers.close()
        self._final_answers.close()

    async def _ready(self, sender: str, address: str) -> SMTP:
        """A connection on which the server waits for the mail itself."""
        client = await self._with_sender(sender)
        try:
            answer = await self._ask(client, b"RCPT", b"TO:" + _path(address))
            if answer.code not in _TAKES_RECIPIENT:
                raise SMTPResponseException(answer.code, answer.message)
            answer = await self._ask(client, b"DATA")
            if answer.code != _GO_AHEAD:
                raise aiosmtplib.SMTPDataError(answer.code, answer.message)
        except (SMTPException, OSError) as error:
            await self._give_back(client, clean=False)
            raise _Refused(*_told(error)) from None
        except BaseException:
            client.close()
            raise
        return client

    async def _with_sender(self, sender: str) -> SMTP:
        """A connection that has taken MAIL FROM; kept ones that the server has closed are passed over."""
        while True:
            kept = self._take()
            client = kept or await self._connect()
            try:
                answer = await self._ask(client, b"MAIL", b"FROM:" + _path(sender))
                if answer.code != _DONE:
                    raise SMTPResponseException(answer.code, answer.message)
            except (SMTPException, OSError) as error:
                client.close()
                gone = isinstance(error, aiosmtplib.SMTPServerDisconnected)
                told_to_go = isinstance(error, SMTPResponseException) and error.code == _UNAVAILABLE
                if kept is not None and (gone or told_to_go):
                    continue
                kind, reason = _told(error)
                raise _Refused(kind, f"sender_refused: {reason}" if kind == "failed" else reason) from None
            except BaseException:
                client.close()
                raise
            return client

    async def _ask(self, client: SMTP, *words: bytes) -> SMTPResponse:
        """A command and its answer, within the time that one may take; a client that is late is closed."""
        if client.is_ehlo_or_helo_needed:
            await _greet(client)
        with _watched(client, self._answers, ANSWER_S):
            return await client.execute_command(*words, timeout=None)

    async def _connect(self) -> SMTP:
        server = self._server
        if self._tls is None and server.security != "none":
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        client = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=server.password or None,
            local_hostname=socket.gethostname(),
            timeout=ANSWER_S,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=self._tls,
        )
        try:
            await client.connect(timeout=CONNECT_S)
        except (SMTPException, OSError, UnicodeError) as error:  # the last for a host's name with an empty part
            # Whatever the code: the server says nothing of this mail, so its dispatch is not at fault.
            raise _Refused("retry", _told(error)[1]) from None
        return client

    async def _hand_over(self, client: SMTP, mail: bytes) -> tuple[str, str]:
        """Send the mail's bytes; from the first of them on, only an answer says what became of it."""
        protocol = client.protocol
        if protocol is None or not protocol.is_connected:
            return "retry", "connection_failed: lost before the mail was sent"
        protocol.write(_on_the_wire(mail))
        try:
            with _watched(client, self._final_answers, self._final_answer_s):
                answer = await protocol.read_response()
        except (SMTPException, OSError) as error:
            client.close()
            return "held", f"uncertain: the mail was sent, its answer is missing ({type(error).__name__})"
        if answer.code in _ACCEPTED:
            await self._give_back(client, clean=True)
            return "sent", ""
        if answer.code not in _REPLY or answer.code < 400:  # noqa: PLR2004
            client.close()
            return "held", f"uncertain: the mail was answered with {answer.code}"
        await self._give_back(client, clean=answer.code != _UNAVAILABLE)
        return _told(SMTPResponseException(answer.code, answer.message))

    def _take(self) -> SMTP | None:
        """The connection used last, if it is young enough and open; older ones are closed."""
        now_s = asyncio.get_running_loop().time()
        while self._kept:
            client, since_s = self._kept.pop()
            if client.is_connected and now_s - since_s < IDLE_S_MAX:
                return client
            client.close()
        return None

    async def _give_back(self, client: SMTP, *, clean: bool) -> None:
        """Keep a connection for the next mail; one in the middle of a refused mail is reset first."""
        try:
            if not clean and client.is_connected:
                await client.rset(timeout=QUIT_S)
        except (SMTPException, OSError):
            client.close()
        if client.is_connected:
            self._kept.append((client, asyncio.get_running_loop().time()))


class _Watch:
    """Closes a connection whose answer is late."""

    def __init__(self, client: SMTP) -> None:
        self._client = client
        self.is_late = False

    def expire(self) -> None:
        self.is_late = True
        self._client.close()


@contextmanager
def _watched(client: SMTP, deadlines: Deadlines, within_s: float) -> Iterator[None]:
    """Wait for an answer at most so long. Raises SMTPReadTimeoutError when it is late."""
    watch = _Watch(client)
    deadlines.add(watch, asyncio.get_running_loop().time() + within_s)
    try:
        yield
    except SMTPServerDisconnected:
        if watch.is_late:
            raise SMTPReadTimeoutError("no answer in time") from None
        raise
    finally:
        deadlines.remove(watch)


async def _greet(client: SMTP) -> None:
    """Say EHLO, or HELO to a server that knows only that."""
    try:
        await client.ehlo()
    except SMTPHeloError:
        if not client.is_connected:
            raise
        await client.helo()


def _path(address: str) -> bytes:
    """An address as SMTP's commands name it."""
    return f"<{address}>".encode("ascii") if _PLAIN.fullmatch(address) else quote_address(address).encode("ascii")


def _on_the_wire(mail: bytes) -> bytes:
    """A mail with SMTP's line ends, its dots doubled where they begin a line, and its end."""
    lines = mail.replace(b"\n", b"\r\n") if b"\r" not in mail else _LINE_ENDS.sub(b"\r\n", mail)
    return lines.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def _told(error: Exception) -> tuple[str, str]:
    """Failed or retry, and the reason: the server's answer, or the kind of error where it gave none."""
    if isinstance(error, SMTPResponseException) and error.code in _REPLY:
        text = f"{error.code} {error.message}"[:REASON_CHARS_MAX]
        reason = "".join(char if char.isprintable() else " " for char in text).strip()
        return "failed" if error.code >= _REFUSED else "retry", reason
    if isinstance(error, TimeoutError):
        return "retry", "timeout: no answer in time"
    return "retry", f"connection_failed: {type(error).__name__}"


async def _quit(client: SMTP) -> None:
    try:
        await client.quit(timeout=QUIT_S)
    except (SMTPException, OSError):
        client.close()
