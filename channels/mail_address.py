"""Mail addresses as templates give them: a name and a mailbox, checked before they reach a header or a server."""

import re
from email.header import Header
from typing import Final, NamedTuple

from streams.domains import DOMAIN_CHARS_MAX, ascii_domain

LOCAL_CHARS_MAX: Final = 64
_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_LITERAL: Final = re.compile(r"\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\x80-\x9f]+")


class MailAddress(NamedTuple):
    """One mailbox and the name shown for it, which may be empty."""

    name: str
    mailbox: str

    @property
    def header(self) -> str:
        """As it stands in a header: ASCII, the name quoted or encoded where needed."""
        if not self.name:
            return self.mailbox
        if _PLAIN_NAME.fullmatch(self.name) and "=?" not in self.name:
            return f"{self.name} <{self.mailbox}>"
        if self.name.isascii() and "=?" not in self.name:
            quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{quoted}" <{self.mailbox}>'
        return f"{encoded(self.name)} <{self.mailbox}>"


def read_address(text: str) -> MailAddress | None:
    """The one address in a text such as `Mel <mel@example.com>`; None where it holds none, or several.

    The domain may be international and is turned into its ASCII form; a mailbox beyond ASCII needs servers
    with SMTPUTF8 all the way and is not supported.
    """
    text = without_controls(text).strip()
    name, mailbox = "", text
    if text.endswith(">"):
        # Split by hand: the standard library guesses at what a broken address may have meant.
        name, _, mailbox = text[:-1].rpartition("<")
    local, _, domain = mailbox.rpartition("@")
    mailbox = f"{local}@{ascii_domain(domain) or ''}"
    return MailAddress(_unquoted(name.strip()), mailbox) if _is_mailbox(mailbox) else None


def _unquoted(name: str) -> str:
    """A display name without its quotes and the backslashes that they need."""
    quoted = _QUOTED.fullmatch(name)
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else name


def without_controls(text: str) -> str:
    """The text with each run of control characters, line ends and NUL among them, as one space."""
    return _CONTROLS.sub(" ", text)


def encoded(text: str) -> str:
    """A header's text by RFC 2047, in lines of at most 76 characters."""
    return Header(text.encode("utf-8", "replace"), "utf-8", maxlinelen=76).encode(linesep="\n")


def _is_mailbox(text: str) -> bool:
    local, at, domain = text.rpartition("@")
    return bool(
        at
        and len(local) <= LOCAL_CHARS_MAX
        and len(domain) <= DOMAIN_CHARS_MAX
        and _LOCAL.fullmatch(local)
        and (_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain))
    )
