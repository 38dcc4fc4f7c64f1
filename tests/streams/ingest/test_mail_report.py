"""Reports of mail servers (RFC 3464, RFC 5965), as the standards write them, and whatever else may be sent instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engagement import return_path
from streams.ingest.mail_report import MailReport, read_mail_report
from streams.policy.bounces import is_dead

DISPATCH = "0123456789abcdef" * 2
VERP = return_path((b"k" * 32,), DISPATCH)

BOUNCE = f"""\
Return-Path: <>
Delivered-To: bounces+{VERP}@mail.example.com
From: Mail Delivery System <MAILER-DAEMON@mx.example.net>
To: bounces+{VERP}@mail.example.com
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="A/B"

This is a MIME-encapsulated message.

--A/B
Content-Type: text/plain; charset=us-ascii

<ann@example.net>: host mx.example.net said: 550 5.1.1 User unknown

--A/B
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.example.com
Arrival-Date: Fri, 28 Nov 2025 10:00:00 +0000

Final-Recipient: rfc822; forwarded@example.org
Original-Recipient: rfc822; ann@example.net
Action: failed
Status: 5.1.1
Remote-MTA: dns; mx.example.net
Diagnostic-Code: smtp; 550 5.1.1 <ann@example.net>: Recipient address rejected:
    User unknown in virtual mailbox table

--A/B
Content-Type: message/rfc822

From: Shop <shop@mail.example.com>
To: Ann <ann@example.net>
Subject: Hello
X-Headrace-Dispatch: {DISPATCH}
X-Headrace-Proof: the-token

Hello Ann

--A/B--
""".replace("\n", "\r\n")

HEADERS_ONLY = BOUNCE.replace("Content-Type: message/rfc822", "Content-Type: text/rfc822-headers")
DELAYED = BOUNCE.replace("Action: failed", "Action: delayed").replace("Status: 5.1.1", "Status: 4.4.1")
EXPIRED = BOUNCE.replace("Status: 5.1.1", "Status: 4.4.7 (expired)")
WITHOUT_MAIL = BOUNCE.partition("--A/B\r\nContent-Type: message/rfc822")[0] + "--A/B--\r\n"

COMPLAINT = """\
From: <feedback@example.net>
To: <fbl@mail.example.com>
Subject: FW: Hello
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=xyz

--xyz
Content-Type: text/plain; charset="US-ASCII"

This is an email abuse report for an email message received from 192.0.2.1.

--xyz
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Rcpt-To: <ann@example.net>

--xyz
Content-Type: message/rfc822
Content-Disposition: inline

From: <shop@mail.example.com>
Subject: Hello
X-Headrace-Proof: the-token

Hello

--xyz--
"""


NESTED = b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 1_000
"""Mails in mails, deeper than the standard library can read."""


@pytest.mark.parametrize(
    ("mail", "kind", "address", "reason", "proof", "path"),
    [
        (BOUNCE, "bounce", "ann@example.net", "5.1.1 550 5.1.1 <ann@example.net>", "the-token", VERP),
        (HEADERS_ONLY, "bounce", "ann@example.net", "5.1.1 550 5.1.1", "the-token", VERP),
        (WITHOUT_MAIL, "bounce", "ann@example.net", "5.1.1 550 5.1.1", "", VERP),
        (EXPIRED, "soft_bounce", "ann@example.net", "4.4.7 550", "the-token", VERP),
        (DELAYED, None, "ann@example.net", "", "the-token", VERP),
        (COMPLAINT, "complaint", "ann@example.net", "abuse", "the-token", ""),
        (COMPLAINT.replace(": abuse", ": not-spam"), None, "ann@example.net", "not-spam", "the-token", ""),
    ],
    ids=["bounce", "headers", "without-mail", "expired", "delayed", "complaint", "not-spam"],
)
def test_what_a_report_says(mail: str, kind: str | None, address: str, reason: str, proof: str, path: str) -> None:
    """Kind, address, reason and proof of each kind of report are read, whether the mail is returned whole or not."""
    found = read_mail_report(mail.encode())

    assert found is not None
    assert found == MailReport(kind, address, found.reason, proof, path)  # type: ignore[arg-type]  # the kind is a text
    assert found.reason.startswith(reason)
    assert "\n" not in found.reason


def test_a_report_counts_however_what_it_returns_is_described() -> None:
    """A description of the returned headers that the standard library trips over is passed over."""
    odd = HEADERS_ONLY.replace("text/rfc822-headers", "text/rfc822-headers; charset*=utf-8'en'utf-8")
    mail = odd.replace("X-Headrace-Proof: ", "Subject: Gr\u00fc\u00dfe\r\nX-Headrace-Proof: ").encode()
    found = read_mail_report(mail)

    assert odd != HEADERS_ONLY
    assert found is not None
    assert (found.kind, found.address, found.proof, found.return_path) == (
        "bounce",
        "ann@example.net",
        "the-token",
        VERP,
    )


def test_a_return_path_is_read_in_any_case() -> None:
    """What a mail server has written in capitals, and whichever header names the recipient, is the same path."""
    shouted = BOUNCE.replace(VERP, VERP.upper()).replace("Delivered-To", "X-Original-To")
    found = read_mail_report(shouted.encode())

    assert found is not None
    assert found.return_path.lower() == VERP


@pytest.mark.parametrize(
    "mail",
    [
        b"",
        b"Subject: I am on holiday\n\nBack soon",
        b"Content-Type: multipart/report; boundary=x\n\n--x\n\ntext\n--x--\n",
        b"Content-Type: multipart/report\n\nno boundary",
        b"\xff" * 1_000,
        NESTED,
    ],
)
def test_other_mail_is_no_report(mail: bytes) -> None:
    """Answers of people, of holidays, and broken mails are passed over."""
    assert read_mail_report(mail) is None


@given(st.integers(0, len(BOUNCE)), st.binary(max_size=30), st.integers(0, 200))
def test_no_bytes_ever_raise(at: int, more: bytes, cut: int) -> None:
    """Whatever is put into a report, or cut out of it, it is read or passed over, and never holds a line end."""
    data = BOUNCE.encode()
    found = read_mail_report(data[:at] + more + data[at + cut :])
    if found is not None:
        assert not any(char in text for text in (found.address, found.reason, found.proof) for char in "\r\n\0")


@given(st.binary(max_size=500))
def test_no_mail_ever_raises(data: bytes) -> None:
    """The same for any bytes behind the headers of a report."""
    read_mail_report(
        b"Content-Type: multipart/report; boundary=x\n\n--x\nContent-Type: message/delivery-status\n\n" + data
    )


@pytest.mark.parametrize(
    ("reason", "dead"),
    [
        *(
            (text, True)
            for text in (
                "550 5.1.1 no such user",
                "5.1.1 550 gone",
                "550 unknown",
                "5.2.1 disabled",
                "5.0.0 550-5.1.1 x",
            )
        ),
        *((text, True) for text in ("550 5.1.10 null MX", "553 bad name", "551 not local")),
        *((text, False) for text in ("550 5.7.1 blocked for spam", "554 5.7.1 policy", "552 5.2.2 mailbox full")),
        *((text, False) for text in ("554 no", "450 4.1.1 later", "4.4.7 expired", "", "sender_refused: 550 5.1.1")),
        *((text, False) for text in ("550 5.7.26 unauthenticated", "connection_failed: x", "535 5.7.8 login", "5.0.0")),
    ],
)
def test_what_says_that_an_address_is_dead(reason: str, dead: bool) -> None:
    """Only what a server says of the address condemns it: not its size, not the mail's content, not our reputation."""
    assert is_dead(reason) is dead
