"""Bounces: what the answer of a mail server says of the address, and what only of the mail or of us."""

import re
from typing import Final

_CODES: Final = re.compile(r"(?:(?:[245]\d\d|[245]\.\d{1,3}\.\d{1,3})(?![\w.])[\s-]*)+")
"""What an answer, or a report's status before it, begins with: replies of three digits, and codes of RFC 3463."""

_SAYS_NOTHING: Final = re.compile(r"\d\.0\.0")
_DEAD: Final = ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1")
"""No such mailbox or domain, a bad syntax, moved away, no mail wanted (null MX), disabled."""

_DEAD_REPLIES: Final = ("550", "551", "553")
"""Where a server gives no such code: no such user here, not local, a mailbox name not allowed."""


def is_dead(reason: str) -> bool:
    """Whether an answer says that the address takes no mail, now or later.

    A mail that is refused for its content or its sender (5.7.1 and the like), for its size or for a full mailbox is
    bounced, but its address stays good: one blocked server of ours must not cost an operator every address.
    """
    found = _CODES.match(reason.strip())
    words = re.split(r"[\s-]+", found[0].strip()) if found else []
    codes = [word for word in words if "." in word and not _SAYS_NOTHING.fullmatch(word)]
    if codes:
        return codes[0] in _DEAD
    return any(word in _DEAD_REPLIES for word in words)
