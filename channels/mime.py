"""Mail as bytes: RFC 5322 and MIME, spliced rather than built from objects, which would cost a millisecond each."""

import re
from binascii import b2a_qp
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

import msgspec

from channels.mail_address import MailAddress, encoded, without_controls
from streams.ingest.mail_report import PROOF_HEADER

LINE_BYTES_MAX: Final = 998
SUBJECT_PLAIN_MAX: Final = 200
HEADER_URL_CHARS_MAX: Final = 900
"""Of what stands in a header in one piece; longer lines are cut or refused on the way."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SENDER: Final = re.compile(rb"^From: (?:.*<)?([^<>\s]+@[^<>\s]+?)>?$", re.MULTILINE)
_TARGET_UNFIT: Final = re.compile(r"[\x00-\x20\x7f<>,]|[^\x00-\x7f]")


class Mail(msgspec.Struct, frozen=True, gc=False):
    """One rendered mail; no field but `text` and `html` may have line ends, and controls become spaces.

    `unsubscribe` is a `mailto:` or `https:` address for List-Unsubscribe, or empty; `one_click` that it can be posted
    to (RFC 8058). `proof` shows that a bounce is of this mail.
    """

    dispatch_id: str
    campaign: str
    sent_ms: int
    sender: MailAddress
    to: MailAddress
    reply_to: MailAddress | None
    subject: str
    text: str
    html: str
    unsubscribe: str = ""
    one_click: bool = False
    proof: str = ""


def build_mail(mail: Mail) -> bytes:
    r"""The mail with `\n` line ends, all of it ASCII; the same mail always gives the same bytes."""
    headers = [
        ("Message-ID", f"<{mail.dispatch_id}@headrace>"),
        ("Date", _date(mail.sent_ms // 1000)),
        ("From", mail.sender.header),
        *([("Reply-To", mail.reply_to.header)] if mail.reply_to else []),
        ("To", mail.to.header),
        ("Subject", _words(mail.subject)),
        *([("List-Unsubscribe", f"<{mail.unsubscribe}>")] if mail.unsubscribe else []),
        *([("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")] if mail.unsubscribe and mail.one_click else []),
        ("X-Headrace-Campaign", _words(mail.campaign)),
        ("X-Headrace-Dispatch", mail.dispatch_id),
        *([(PROOF_HEADER, mail.proof)] if mail.proof else []),
        ("MIME-Version", "1.0"),
    ]
    lines = "".join(f"{name}: {value}\n" for name, value in headers).encode()
    if not (mail.text and mail.html):
        kind, content = ("html", mail.html) if mail.html else ("plain", mail.text)
        return lines + _part(kind, content)
    boundary = f"=_{mail.dispatch_id}".encode()
    return b"".join(
        (
            lines,
            b'Content-Type: multipart/alternative; boundary="' + boundary + b'"\n\n',
            b"--" + boundary + b"\n" + _part("plain", mail.text),
            b"--" + boundary + b"\n" + _part("html", mail.html),
            b"--" + boundary + b"--\n",
        )
    )


def sender_of(mail: bytes) -> str:
    """The mailbox in the From header of a mail that `build_mail` made: who SMTP's envelope says it is from."""
    found = _SENDER.search(mail.partition(b"\n\n")[0].replace(b"\n ", b" "))  # a long name goes over several lines
    assert found is not None
    return found[1].decode()


def read_unsubscribe(text: str) -> str | None:
    """A List-Unsubscribe target fit for its header; None for what is neither `mailto:` nor `https:`."""
    if text.startswith(("mailto:", "https://")) and not _TARGET_UNFIT.search(text):
        return text if len(text) < LINE_BYTES_MAX // 2 else None
    return None


@lru_cache(maxsize=1_024)
def _date(sent_s: int) -> str:
    """The Date header of a second; many mails are decided in the same one."""
    return format_datetime(_EPOCH + timedelta(seconds=sent_s))


def _words(text: str) -> str:
    """A header's text on one line, encoded by RFC 2047 where it is not ASCII, too long, or looks encoded."""
    text = without_controls(text)
    is_plain = text.isascii() and len(text) < SUBJECT_PLAIN_MAX and "=?" not in text
    return text if is_plain else encoded(text)


def _has_long_line(data: bytes) -> bool:
    return len(data) > LINE_BYTES_MAX and max(map(len, data.split(b"\n"))) > LINE_BYTES_MAX


def _part(kind: str, content: str) -> bytes:
    """One body part: as it is when it is ASCII in short lines, else quoted-printable, which any server carries."""
    data = content.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")
    if not data.endswith(b"\n"):
        data += b"\n"
    encoding = b"7bit"
    if not data.isascii() or b"\0" in data or _has_long_line(data):
        data, encoding = b2a_qp(data, istext=True), b"quoted-printable"
    return b"".join(
        (
            b"Content-Type: text/",
            kind.encode(),
            b'; charset="utf-8"\nContent-Transfer-Encoding: ',
            encoding,
            b"\n\n",
            data,
        )
    )
