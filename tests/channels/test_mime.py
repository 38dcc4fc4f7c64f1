"""Mails read back by Python's own parser: what was meant arrives, and nothing that was not meant."""

import email
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channels.channel import Envelope, Skipped
from channels.email import compile_
from channels.mail_address import MailAddress, read_address
from channels.mime import Mail, build_mail, read_unsubscribe, sender_of
from channels.render.engine import RenderContext, Renderer
from streams.definitions import EmailMessage as Definition

NAME = f"{7:032x}"
HEADERS = {
    *("Message-ID", "Date", "From", "To", "Subject", "X-Headrace-Campaign", "X-Headrace-Dispatch"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}
texts = st.text(max_size=300) | st.text(st.sampled_from("aä\n\r\0.=?-_ \x85\u2028😀"), max_size=2_500)
lines = st.text(max_size=120) | st.text(st.sampled_from('aä \r\n\0:,;<>@"\\=?()'), max_size=400)
mailboxes = st.sampled_from(["a@b.c", "x.y+z@sub.example.com", "o'neil@example.com", "a@[127.0.0.1]"])
addresses = st.builds(
    lambda name, box: f"{name} <{box}>", st.text(st.characters(codec="utf-8"), max_size=60), mailboxes
)


def parse(data: bytes) -> EmailMessage:
    """The mail as an independent reader sees it, which must find no fault in it."""
    message = email.message_from_bytes(data, policy=default)
    assert isinstance(message, EmailMessage)
    assert [part.defects for part in message.walk()] == [[]] * len(list(message.walk()))
    return message


def spaced(text: str) -> str:
    """A text as a header may show it: white space and controls are one space each run."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def plain(text: str) -> str:
    """A body's text with the line ends that mail knows, and one at its end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")


@given(lines, texts, texts)
def test_a_mail_says_what_was_meant(subject: str, text: str, html: str) -> None:
    """Subject and bodies come back as they were, whatever characters they hold, in ASCII lines of legal length."""
    data = build_mail(
        Mail(NAME, "c", 0, MailAddress("A", "a@b.c"), MailAddress("", "x@y.z"), None, subject, text, html)
    )
    mail = parse(data)

    assert data.isascii()
    assert b"\r" not in data
    assert b"\0" not in data
    assert max(map(len, data.split(b"\n"))) <= 998
    assert spaced(str(mail["Subject"])) == spaced(subject)
    assert set(mail.keys()) <= HEADERS
    assert len(mail.keys()) == len(set(mail.keys()))
    assert mail["X-Headrace-Dispatch"] == NAME
    assert NAME in mail["Message-ID"]
    for kind, wanted in (("plain", text), ("html", html)):
        body = mail.get_body((kind,))
        if wanted:
            assert body is not None
            content = body.get_payload(decode=True)
            assert isinstance(content, bytes)
            assert plain(content.decode()) == plain(wanted)


@given(lines, lines, lines, lines)
@example("\U00010000" * 40, "", "", "")
def test_no_rendered_value_begins_a_header(sender: str, to: str, reply_to: str, subject: str) -> None:
    """Whatever users put into their fields, a mail has the headers we give it and one recipient, or is not sent."""
    message = Definition(
        to="{{ ${a} }} <x@y.z>", subject="{{ ${b} }}", text="t", from_="{{ ${c} }} <s@y.z>", reply_to="{{ ${d} }}"
    )
    profile = {"a": to, "b": subject, "c": sender, "d": reply_to}
    try:
        request = compile_(message, Renderer())(Envelope(NAME, "c", 0), RenderContext(profile=profile))
    except Skipped:
        return
    mail = parse(request.body)

    assert set(mail.keys()) <= HEADERS | {"Reply-To"}
    assert len(mail["To"].addresses) == len(mail["From"].addresses) == 1
    assert request.address == mail["To"].addresses[0].addr_spec == "x@y.z"
    assert sender_of(request.body) == mail["From"].addresses[0].addr_spec == "s@y.z"


@given(addresses)
def test_an_address_survives_its_header(text: str) -> None:
    """Name and mailbox that were read come back from the header through an independent reader.

    White space in names is left out: this reader puts some between encoded words, which RFC 2047 forbids.
    """
    found = read_address(text)
    if found is None:
        return
    mail = parse(f"From: {found.header}\n\nx\n".encode("ascii"))
    (back,) = mail["From"].addresses

    assert back.addr_spec == found.mailbox
    assert spaced(back.display_name).replace(" ", "") == spaced(found.name).replace(" ", "")


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        *(("a@b.c", "a@b.c"), ("Mel <mel@b.c>", "mel@b.c"), ('"Doe, Jo" <jo@b.c>', "jo@b.c"), (" a@b.c ", "a@b.c")),
        *(("a@bücher.example", "a@xn--bcher-kva.example"), ("a@b.c.", "a@b.c."), ("a@[::1]", "a@[::1]")),
        *(("a@faß.de", "a@xn--fa-hia.de"), ("a@FAẞ.de", "a@xn--fa-hia.de"), ("a@日本語。jp", "a@xn--wgv71a119e.jp")),
        *(("a@ς.gr", "a@xn--3xa.gr"), ("a@☃.net", None), ("a@b\u200d.de", None), ("a@" + "ä" * 256, None)),
        *((text, None) for text in ("", "a", "@b.c", "a@", "a@b@c", "a@b.c, d@e.f", "a b@c.d", "jö@b.c", ".a@b.c")),
        *((text, None) for text in ("a@b..c", "a@-b.c", "a@b.c\nBcc: x@y.z", "<a@b.c> x", "a" * 65 + "@b.c", "a@b c")),
        *((text, None) for text in ('"a b"@c.d', "a@b.c>\r\nRCPT TO:<x@y.z", "a@b_c.d", "a@" + "b" * 64 + ".c")),
    ],
)
def test_what_is_one_address(text: str, mailbox: str | None) -> None:
    """One address is read with its mailbox in ASCII; none, several and broken ones are refused."""
    found = read_address(text)

    assert (found.mailbox if found else None) == mailbox


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        *(("mailto:leave@example.com?subject=x", True), ("https://example.com/u?t=1", True)),
        *(
            ("http://example.com", False),
            ("javascript:x", False),
            ("https://a>\nBcc: x", False),
            ("mailto:ä@b.c", False),
        ),
        *(("https://" + "a" * 600, False), ("https://a,b", False), ("https://a b", False)),
    ],
)
def test_list_unsubscribe_is_one_target(text: str, passes: bool) -> None:
    """Only one mailto: or https: target, without what could end it, becomes the header."""
    assert (read_unsubscribe(text) == text) is passes


def test_the_unsubscribe_header_is_there() -> None:
    """What the message gives stands in List-Unsubscribe; without it there is no such header, and never one-click."""
    message = Definition(to="x@y.z", subject="s", text="t", list_unsubscribe="https://e.example/{{ ${user_id} }}")
    request = compile_(message, Renderer())(Envelope(NAME, "c", 0), RenderContext(profile={"user_id": "u1"}))
    mail = parse(request.body)

    assert mail["List-Unsubscribe"] == "<https://e.example/u1>"
    assert mail["List-Unsubscribe-Post"] is None
