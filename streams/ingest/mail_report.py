"""Reports of mail servers as mails: delivery status (RFC 3464) and complaints (RFC 5965), read without trust."""

import re
from collections.abc import Iterator
from email import policy
from email.message import Message
from email.parser import BytesHeaderParser, BytesParser
from email.utils import parseaddr
from typing import Final, NamedTuple

from streams.engagement import EngagementKind

REPORT_BYTES_MAX: Final = 1024 * 1024
"""Of a report that is read; what a server returns of our mail stands behind what it says."""

PARTS_MAX: Final = 50
PROOF_HEADER: Final = "X-Headrace-Proof"
_RETURN_PATH: Final = re.compile(r"\+([A-Za-z2-7]{52})@")
_RECIPIENT_HEADERS: Final = ("Delivered-To", "X-Original-To", "Envelope-To", "To")
_STATUS: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")
_REASON_CHARS_MAX: Final = 500
_ADDRESS_CHARS_MAX: Final = 320


class MailReport(NamedTuple):
    """What a report says, and what it proves it by: a token of ours, and the return path that it was sent to.

    Nothing in it is true before one of the two is verified. `kind` is None for what changes nothing, such as a delay.
    """

    kind: EngagementKind | None
    address: str
    reason: str
    proof: str
    return_path: str


def read_mail_report(data: bytes) -> MailReport | None:
    """The report in a mail; None where the mail is none. Never raises, whatever the bytes."""
    try:
        return _report(data)
    except RecursionError:  # mails in mails, more than a server returns: each is read inside the last
        return None


def _report(data: bytes) -> MailReport | None:
    message = BytesParser(policy=policy.compat32).parsebytes(data[:REPORT_BYTES_MAX])
    if message.get_content_type() != "multipart/report":
        return None
    proof, sent_to, return_path = "", "", _return_path(message)
    kind: EngagementKind | None = None
    address = reason = ""
    is_report = False
    for part in _parts(message):
        content_type = part.get_content_type()
        if content_type == "message/delivery-status":
            kind, address, reason = _status(part)
            is_report = True
        elif content_type == "message/feedback-report":
            kind, address, reason = _complaint(part)
            is_report = True
        elif content_type in ("message/rfc822", "text/rfc822-headers", "message/rfc822-headers"):
            proof, sent_to = _returned(part)
    return MailReport(kind, sent_to or address, reason, proof, return_path) if is_report else None


def _parts(message: Message) -> Iterator[Message]:
    """The report's own parts, not those of what it returns."""
    payload = message.get_payload()
    parts = payload if isinstance(payload, list) else []
    yield from (part for part in parts[:PARTS_MAX] if isinstance(part, Message))


def _status(part: Message) -> tuple[EngagementKind | None, str, str]:
    """Of the first recipient who was given up; our mails have one each."""
    payload = part.get_payload()
    for block in payload[:PARTS_MAX] if isinstance(payload, list) else ():
        if not isinstance(block, Message) or _text(block, "Action").lower() != "failed":
            continue
        status = _STATUS.search(_text(block, "Status"))
        code = status[0] if status else "5.0.0"
        kind: EngagementKind = "soft_bounce" if code.startswith("4") else "bounce"
        said = _text(block, "Diagnostic-Code").partition(";")[2].strip()
        return kind, _address(block), f"{code} {said}".strip()[:_REASON_CHARS_MAX]
    return None, "", ""


def _complaint(part: Message) -> tuple[EngagementKind | None, str, str]:
    """Every report of abuse counts; one that takes it back (`not-spam`), or of another kind, changes nothing."""
    payload = part.get_payload()
    inner = payload[0] if isinstance(payload, list) and payload else None
    if not isinstance(inner, Message):
        return None, "", ""
    kind = _text(inner, "Feedback-Type").lower()
    address = parseaddr(_text(inner, "Original-Rcpt-To"))[1][:_ADDRESS_CHARS_MAX]
    return ("complaint" if kind in ("abuse", "fraud") else None), address, kind[:_REASON_CHARS_MAX]


def _address(block: Message) -> str:
    """`rfc822; ann@example.com`, the one that we sent to where the report knows it."""
    for name in ("Original-Recipient", "Final-Recipient"):
        kind, _, address = _text(block, name).partition(";")
        if kind.strip().lower() == "rfc822" and "@" in address:
            return address.strip().strip("<>")[:_ADDRESS_CHARS_MAX]
    return ""


def _returned(part: Message) -> tuple[str, str]:
    """The token in the headers of the mail that the report returns, and whom it was sent to.

    A report's own fields may name where somebody has forwarded it to, which is no address of ours to judge.
    """
    if part.is_multipart():
        payload = part.get_payload()
        inner = payload[0] if isinstance(payload, list) and payload else None
    else:
        raw = part.get_payload(decode=True)  # as text it would be decoded by what the head says
        inner = BytesHeaderParser(policy=policy.compat32).parsebytes(raw if isinstance(raw, bytes) else b"")
    if not isinstance(inner, Message):
        return "", ""
    return _text(inner, PROOF_HEADER), parseaddr(_text(inner, "To"))[1][:_ADDRESS_CHARS_MAX]


def _return_path(message: Message) -> str:
    """What stands behind the plus of the address that the report was sent to."""
    for name in _RECIPIENT_HEADERS:
        for value in (message.get_all(name) or [])[:PARTS_MAX]:
            found = _RETURN_PATH.search(str(value))
            if found is not None:
                return found[1]
    return ""


def _text(message: Message, name: str) -> str:
    """A header's value on one line; empty without it."""
    return _CONTROLS.sub(" ", str(message.get(name, ""))).strip()
