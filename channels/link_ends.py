"""Where a web address in a plain text ends: nothing marks it there, and no text behind it may be lost with it.

ASCII goes on as long as it can stand in an address. Beyond it, punctuation and symbols end one, and letters belong to
it, but for scripts that put no spaces between words, and Hangul with its particles: there a sentence may go on directly
behind. Where that cannot be told, the address is left as it is, so that it leads where its author wrote.
"""

import re
from typing import Final
from unicodedata import category

_PLAIN: Final = re.compile(r"[!#-;=?-~]*+")
_HOST_PLAIN: Final = re.compile(r"[!$-.0-;=@-\[\]-~]*+")
_PATH_BEGINS: Final = ("/", "?", "#", "\\")
_ASCII_MAX: Final = "\x7f"
_SPACELESS: Final = re.compile(
    "["
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df"  # Thai, Lao, Tibetan, Burmese, Khmer, Tai
    "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc"  # Hangul
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff"  # Han, kana, Yi
    "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f"  # wide Latin and narrow kana
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "]"
)
_INSIDE: Final = frozenset("\u00b7\u0375\u05f3\u05f4\u30fb\u200c\u200d")
"""Punctuation and joiners that stand in the middle of words, and of registered names."""

_WIDE_DOTS: Final = frozenset("\u3002\uff0e\uff61")
"""They end a sentence, or stand between the labels of a host."""

_CLOSING: Final = frozenset(")]}.,;!")
_APOSTROPHE: Final = "\u2019"


def link_end(text: str, start: int) -> int | None:
    """Where the address ends whose host begins at `start`; None where that cannot be told."""
    end = _host_end(text, start)
    return _rest_end(text, end) if end is not None and text[end : end + 1] in _PATH_BEGINS else end


def _host_end(text: str, start: int) -> int | None:
    """Behind the host and what else stands before a path. What no name may hold is refused later, by its reader."""
    at, is_international = start, False
    while (char := text[(at := _end(_HOST_PLAIN, text, at)) : at + 1]) > _ASCII_MAX and not _ends_host(char):
        at, is_international = at + 1, True
    if char in _WIDE_DOTS and text[at + 1 : at + 2].isascii() and text[at + 1 : at + 2].isalnum():
        return None
    head, dot, last = text[start:at].rpartition(".")
    if not dot and (is_international or (char > _ASCII_MAX and not char.isspace())):
        return None
    if last[:1] <= _ASCII_MAX:  # no domain at the top mixes ASCII with other scripts
        behind = (i for i, each in enumerate(last) if each > _ASCII_MAX and (_is_spaceless(each) or _kind(each) == "S"))
        at = start + len(head) + len(dot) + next(behind, len(last))
    return at


def _rest_end(text: str, at: int) -> int | None:
    """Behind path, query and fragment."""
    while (char := text[(at := _end(_PLAIN, text, at)) : at + 1]) > _ASCII_MAX:
        before, after = text[at - 1], text[at + 1 : at + 2]
        if _is_spaceless(char):
            return at if before in _CLOSING or (before.isascii() and before.isalnum()) else None
        if _kind(char) not in "LMN" and char not in _INSIDE:
            is_inner = (char == _APOSTROPHE or category(char) == "Pd") and after.isalnum()
            return None if is_inner else at
        at += 1
    return at


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _is_spaceless(char: str) -> bool:
    return _SPACELESS.match(char) is not None


def _kind(char: str) -> str:
    """L for letters, M for marks, N for numbers, P for punctuation, S for symbols, Z for spaces, C for the rest."""
    return category(char)[0]


def _ends_host(char: str) -> bool:
    return _kind(char) in "PZC" and char not in _INSIDE
