"""International domain names, in the form by which mail servers and DNS know them."""

from typing import Final

import idna

DOMAIN_CHARS_MAX: Final = 255


def ascii_domain(text: str) -> str | None:
    """A domain in ASCII, by IDNA 2008 as browsers apply it (UTS 46); None for one that cannot be registered.

    Python's own codec is IDNA 2003, for which `faß.de` is `fass.de`, somebody else's. What is ASCII stays as it is.
    """
    if text.isascii():
        return text
    if len(text) > DOMAIN_CHARS_MAX:
        return None
    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except UnicodeError:  # its own errors are
        return None


def same_mailbox(one: str, other: str) -> bool:
    """Whether two mail addresses are the same, in whatever case or form their domains are written."""
    return one.lower() == other.lower() or _in_ascii(one) == _in_ascii(other)


def _in_ascii(mailbox: str) -> str:
    local, at, domain = mailbox.lower().rpartition("@")
    return f"{local}{at}{ascii_domain(domain) or domain}"
