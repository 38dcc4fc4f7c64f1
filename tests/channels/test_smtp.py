"""Mails against a real server: what each fault becomes, that nothing is sent twice, and that connections are kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from channels import smtp as smtp_module
from channels.channel import Envelope, Receipt, Request
from channels.email import compile_
from channels.render.engine import RenderContext, Renderer
from channels.smtp import CONNECTIONS_MAX, Smtp
from config.smtp_server import SmtpServer, read_smtp_server
from streams.definitions import EmailMessage
from streams.errors import Revoked
from tests.channels.mail_server import MailServer, mail_server, only

NAME = f"{7:032x}"


def mail(to: str, text: str = "Hello", sender: str = "me@example.com", number: int = 7) -> Request:
    """A rendered mail."""
    message = EmailMessage(to=to, subject="Grüße", text=text, html="<p>Hi</p>", from_=f"Me <{sender}>")
    return compile_(message, Renderer())(Envelope(f"{number:032x}", "c", 0), RenderContext())


@asynccontextmanager
async def sending(server: MailServer, final_answer_s: float = 5.0, user: str = "") -> AsyncIterator[Smtp]:
    """A provider that hands mails to this server."""
    smtp = Smtp(SmtpServer("127.0.0.1", server.port, "none", user, "secret"), final_answer_s=final_answer_s)
    try:
        yield smtp
    finally:
        await smtp.close()


@pytest.mark.parametrize(
    ("to", "kind", "reason", "taken"),
    [
        ("ok@example.com", "sent", "", 1),
        ("rcpt-550@example.com", "failed", "550 5.1.1 no such user", 0),
        ("rcpt-450@example.com", "retry", "450 5.1.1 no such user", 0),
        ("rcpt-421@example.com", "retry", "421 5.1.1 no such user", 0),
        ("rcpt-drop@example.com", "retry", "connection_failed: ", 0),
        ("end-554@example.com", "failed", "554 not now", 0),
        ("end-451@example.com", "retry", "451 not now", 0),
        ("data-drop@example.com", "held", "uncertain: ", 0),
        ("end-drop@example.com", "held", "uncertain: ", 1),
        ("hang@example.com", "held", "uncertain: ", 1),
    ],
)
async def test_what_each_fault_becomes(to: str, kind: str, reason: str, taken: int) -> None:
    """Refusals fail with a reason, the certain is retried, the uncertain held, and the next mail is sent."""
    async with mail_server() as server, sending(server, final_answer_s=0.3) as smtp:
        receipt = await smtp.attempt(mail(to))
        after = await smtp.attempt(mail("ok@example.com"))

    assert (receipt.dispatch_id, receipt.kind) == (NAME, kind)
    assert receipt.reason.startswith(reason)
    assert len(server.taken) == taken + 1
    assert after == Receipt(NAME, "sent", is_delivered=True)


async def test_a_server_silent_before_the_mail_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is not answered in time has its mail retried, and the next goes over another connection."""
    monkeypatch.setattr(smtp_module, "ANSWER_S", 0.3)
    async with mail_server() as server, sending(server) as smtp:
        first = await smtp.attempt(mail("ok@example.com"))
        silent = await smtp.attempt(mail("rcpt-hang@example.com"))
        after = await smtp.attempt(mail("ok@example.com"))

    assert (silent.kind, silent.reason) == ("retry", "timeout: no answer in time")
    assert (first.kind, after.kind, len(server.taken)) == ("sent", "sent", 2)


@pytest.mark.parametrize(("code", "kind"), [(550, "failed"), (451, "retry"), (421, "retry")])
async def test_a_refused_sender_is_no_bounce(code: int, kind: str) -> None:
    """A sender refused for good fails, with a reason that is no bounce: the recipient is not at fault."""
    async with mail_server() as server, sending(server) as smtp:
        receipt = await smtp.attempt(mail("ok@example.com", sender=f"mail-{code}@example.com"))

    assert receipt.kind == kind
    assert receipt.reason.startswith(f"sender_refused: {code}" if kind == "failed" else f"{code}")
    assert server.taken == []


async def test_what_arrives_is_what_was_rendered() -> None:
    """Envelope and bytes arrive as rendered but for line ends, dots at the beginning of lines included."""
    request = mail("you@example.com", text=".\n..\n.hidden\n\nende ü\n.\n")
    async with mail_server() as server, sending(server) as smtp:
        await smtp.attempt(request)
    ((sender, to, content),) = server.taken

    assert (sender, to) == ("me@example.com", "you@example.com")
    assert content == request.body.replace(b"\n", b"\r\n")


async def test_connections_are_kept_and_bounded() -> None:
    """A thousand mails, as many at once as allowed, go over no more connections than that, each once."""
    async with mail_server() as server, sending(server) as smtp:
        slots = asyncio.Semaphore(smtp.limits.at_once)

        async def send(number: int) -> Receipt:
            async with slots:
                return await smtp.attempt(mail("you@example.com", number=number))

        receipts = await asyncio.gather(*map(send, range(1_000)))

    assert {receipt.kind for receipt in receipts} == {"sent"}
    assert len(server.taken) == 1_000
    assert len({content for _, _, content in server.taken}) == 1_000
    assert server.connections <= CONNECTIONS_MAX


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    """When the server has hung up between two mails, the second goes over a new connection at the first attempt."""
    async with mail_server() as server, sending(server) as smtp:
        await smtp.attempt(mail("you@example.com"))
        server.drop(server.servers[0])
        await asyncio.sleep(0.05)
        receipt = await smtp.attempt(mail("you@example.com"))

    assert receipt.kind == "sent"
    assert server.connections == 2
    assert len(server.taken) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "mail..example.com"])
async def test_nobody_there_is_retried(host: str) -> None:
    """A closed port, or a server's name that cannot be one, is retried, since nothing was handed over."""
    receipt = await Smtp(SmtpServer(host, 1, "none")).attempt(mail("you@example.com"))

    assert receipt.kind == "retry"


@pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")  # the server's own: a login without TLS is meant
@pytest.mark.filterwarnings("ignore:Session.login_data:DeprecationWarning")  # the server's own use of its attribute
@pytest.mark.parametrize(("user", "kind"), [("me", "sent"), ("you", "retry")])
async def test_the_login(user: str, kind: str) -> None:
    """With the right password mails go; a refused login is retried, since no recipient is at fault."""
    options = {"authenticator": only(b"me", b"secret"), "auth_required": True, "auth_require_tls": False}
    async with mail_server(**options) as server, sending(server, user=user) as smtp:
        receipt = await smtp.attempt(mail("you@example.com"))

    assert receipt.kind == kind
    assert "secret" not in receipt.reason
    assert len(server.taken) == (kind == "sent")


async def test_a_cancelled_attempt_leaves_no_connection_in_use() -> None:
    """An attempt that is cancelled while the answer is awaited gives up its connection, and says nothing."""
    async with mail_server() as server, sending(server) as smtp:
        task = asyncio.create_task(smtp.attempt(mail("hang@example.com")))
        await server.has_taken.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert smtp._kept == []


async def test_a_mail_that_is_no_longer_ours_is_not_handed_over() -> None:
    """Asked again when the server waits for the mail: whoever has stood still until then says nothing more."""
    async with mail_server() as server, sending(server) as smtp:

        async def proof() -> None:
            raise Revoked("partition 3 belongs to another worker now")

        with pytest.raises(Revoked):
            await smtp.attempt(msgspec.structs.replace(mail("ok@example.com"), proof=proof))
        after = await smtp.attempt(mail("ok@example.com", number=8))

    assert [content.count(b"X-Headrace-Dispatch: " + f"{8:032x}".encode()) for _, _, content in server.taken] == [1]
    assert after.kind == "sent"


async def test_uncertain_mails_are_held() -> None:
    """After a crash every mail without an outcome is held and says why."""
    (receipt,) = await Smtp(SmtpServer("127.0.0.1", 1, "none")).settle([mail("you@example.com")])

    assert receipt.kind == "held"
    assert receipt.reason.startswith("uncertain: ")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example:2525", SmtpServer("mail.example", 2525, "none")),
        ("smtp://u%40x:p%3Aw@mail.example", SmtpServer("mail.example", 25, "none", "u@x", "p:w")),
        ("smtp+starttls://[::1]", SmtpServer("::1", 587, "starttls")),
        ("smtps://mail.example", SmtpServer("mail.example", 465, "tls")),
        *((url, None) for url in ("mail.example:25", "ftp://u:sekret@h", "smtp://", "smtp://h:x", "smtp://h:99999")),
        *((url, None) for url in ("smtp://user@h", "smtp://u:sekret@h/path", "smtp://u:sekret@h?x=y")),
    ],
)
def test_the_setting(url: str, server: SmtpServer | None) -> None:
    """Each form of the setting is read; what cannot be used is refused without quoting a password."""
    if server is None:
        with pytest.raises(ValueError, match="write smtp://") as caught:
            read_smtp_server(url)
        assert "sekret" not in str(caught.value)
    else:
        assert read_smtp_server(url) == server
        assert "p:w" not in repr(server)
