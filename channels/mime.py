"""Mail as bytes: RFC 5322 and MIME, spliced rather than built from objects, which would cost a millisecond each."""

from base64 import encodebytes
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.utils import format_datetime, formataddr, getaddresses
from typing import Final

import msgspec

LINE_BYTES_MAX: Final = 998
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Mail(msgspec.Struct, frozen=True):
    """One rendered mail; no field but `text` and `html` has line ends."""

    dispatch_id: str
    campaign: str
    sent_ms: int
    sender: str
    to: str
    reply_to: str
    subject: str
    text: str
    html: str


def build_mail(mail: Mail) -> bytes:
    r"""The mail with `\n` line ends; the same mail always gives the same bytes."""
    headers = [
        ("Message-ID", f"<{mail.dispatch_id}@headrace>"),
        ("Date", format_datetime(_EPOCH + timedelta(milliseconds=mail.sent_ms))),
        ("From", _addresses(mail.sender)),
        ("To", _addresses(mail.to)),
        ("Subject", _words(mail.subject)),
        ("X-Headrace-Campaign", mail.campaign),
        ("X-Headrace-Dispatch", mail.dispatch_id),
        ("MIME-Version", "1.0"),
    ]
    if mail.reply_to:
        headers.insert(4, ("Reply-To", _addresses(mail.reply_to)))
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


def _words(text: str) -> str:
    """A header's text, encoded by RFC 2047 where it is not ASCII or too long."""
    return text if text.isascii() and len(text) < LINE_BYTES_MAX // 2 else Header(text, "utf-8").encode()


def _addresses(text: str) -> str:
    """Addresses with their display names encoded where needed."""
    if text.isascii():
        return text
    return ", ".join(formataddr(pair) for pair in getaddresses([text]))


def _part(kind: str, content: str) -> bytes:
    """One body part: as it is when its lines are short enough, else base64."""
    data = content.replace("\r\n", "\n").replace("\r", "\n").encode()
    if not data.endswith(b"\n"):
        data += b"\n"
    encoding = b"8bit" if not data.isascii() else b"7bit"
    if max(map(len, data.split(b"\n"))) > LINE_BYTES_MAX or b"\0" in data:
        data, encoding = encodebytes(data), b"base64"
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
