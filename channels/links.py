"""The links of a rendered mail: where they stand in its HTML or text, found as a mail program would find them.

HTML is read by the rules of its standard for tokens (comments, raw text, attributes with and without quotes, character
references in them), by patterns that never go back over what they have read, so that the time is linear in the length.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from html.entities import html5
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from channels.link_ends import link_end
from config import metrics
from streams.domains import ascii_domain
from streams.engagement import URL_BYTES_MAX

LINKS_MAX: Final = 1_000
"""Links of one part that are rewritten; the others lead where they lead, uncounted."""

OPT_OUT: Final = "data-untracked"
"""The attribute of a link that is left as it is."""

_SPACE: Final = r"[\t\n\f\r ]"
_ATTRIBUTE: Final = rf"""
    [\t\n\f\r /]*+ (?P<name> [^\t\n\f\r />] [^\t\n\f\r />=]*+ )
    (?: {_SPACE}*+ = {_SPACE}*+
        (?: "(?P<double>[^"]*+)" | '(?P<single>[^']*+)' | (?P<bare>[^\t\n\f\r >"'][^\t\n\f\r >]*+) | (?=>) )
    )?+
"""
_ATTRIBUTES: Final = re.compile(_ATTRIBUTE, re.VERBOSE)
_NAMELESS: Final = re.sub(r"\?P<\w+>", "?:", _ATTRIBUTE)
_REST: Final = rf"(?: {_NAMELESS} )*+ [\t\n\f\r /]*+ >"
_END: Final = r"(?=[\t\n\f\r />])"
_RAW: Final = {
    name: re.compile(rf"</{name}{_END}", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_BORING: Final = re.compile(
    rf"""
    (?: [^<]++
      | <(?! (?: a | area | plaintext | {"|".join(_RAW)} ) {_END} ) [a-zA-Z][^\t\n\f\r />]*+ {_REST}
      | </(?! body {_END} ) [a-zA-Z][^\t\n\f\r />]*+ {_REST}
      | <!--(?: -?> | (?: [^-]++ | -(?!-) | --(?!!?>) )*+ --!?> )
      | <(?: !(?!--) | \? | /(?![a-zA-Z>]) ) [^>]*+ >
      | <(?![a-zA-Z/!?]) | </>
    )*+
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""As much as holds no link, read in one go: text, tags, comments."""

_TAG: Final = re.compile(rf"<(/?[a-zA-Z][^\t\n\f\r />]*+) ( {_REST} )", re.VERBOSE)
_REFERENCE: Final = re.compile(r"&(?:#[xX]([0-9a-fA-F]++)|#([0-9]++)|([a-zA-Z][a-zA-Z0-9]*+));?(?P<next>=?)")
_WEB: Final = re.compile(r"https?://[^/?#\\]", re.IGNORECASE)
_SCHEME: Final = re.compile(r"https?://", re.IGNORECASE)
_WORD: Final = re.compile(r"[^\s<>\"\x00-\x1f\x7f]*+")
_TRAILING: Final = ".,;:!?'*_~"
_OPENS: Final = {")": "(", "]": "[", "}": "{"}
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"<>\\^`{|}')
_URLS_REMEMBERED_MAX: Final = 1_024
_CODE_MAX: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)

Address = Callable[[str], str]
"""Gives the address that a link's target is to be replaced by."""


class Link(NamedTuple):
    """A target and where it stands, with its quotes if it has some."""

    start: int
    end: int
    url: str


class Page(NamedTuple):
    """The links of an HTML text, and where something may be put that belongs to its body."""

    text: str
    links: tuple[Link, ...]
    body_end: int
    """Below 0 where nothing can be put, since what the text opens is never closed."""


class Plain(NamedTuple):
    """The links of a plain text."""

    text: str
    links: tuple[Link, ...]


def read_html(text: str) -> Page:
    """Find the http and https links (`a` and `area`) that are not opted out, and the end of the body."""
    links: list[Link] = []
    body_end = -1
    at = _end(_BORING, text, 0)
    while at < len(text):
        tag = _TAG.match(text, at)
        if tag is None:  # left open: nothing behind it is shown
            return Page(text, _bounded(links), body_end)
        at = tag.end()
        name = tag[1].lower()
        if name in ("a", "area"):
            links += _link(text, tag.start(2), at)
        elif name == "/body":
            body_end = tag.start()
        elif name == "plaintext" or (closing := _RAW[name].search(text, at)) is None:
            return Page(text, _bounded(links), body_end)
        else:
            at = closing.end()
        at = _end(_BORING, text, at)
    return Page(text, _bounded(links), len(text) if body_end < 0 else body_end)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def read_text(text: str) -> Plain:
    """Find the http and https links of a plain text; a sentence's marks and words behind one are not part of it."""
    links: list[Link] = []
    at = 0
    while found := _SCHEME.search(text, at):
        end = link_end(text, found.end())
        at = _end(_WORD, text, found.end()) if end is None else end
        shown = "" if end is None else _without_marks(text[found.start() : end])
        url = web_url(shown)
        if url is not None:
            links.append(Link(found.start(), found.start() + len(shown), url))
    return Plain(text, _bounded(links))


def _without_marks(url: str) -> str:
    """Without what ends the sentence or the bracket that a link stands in."""
    surplus = {close: url.count(close) - url.count(_OPENS[close]) for close in _OPENS}
    end = len(url)
    while url[end - 1] in _TRAILING or surplus.get(url[end - 1], 0) > 0:
        end -= 1
        if url[end] in surplus:
            surplus[url[end]] -= 1
    return url[:end]


def rewrite_html(page: Page, address: Address, pixel: str = "") -> str:
    """The HTML with each link's target replaced, and `pixel` (a URL) as an image at the end of its body.

    What `address` gives needs no escaping: letters, digits and what stands in a URL's path.
    """
    pieces: list[str] = []
    at = 0
    for link in page.links:
        pieces += (page.text[at : link.start], '"', address(link.url), '"')
        at = link.end
    if pixel and page.body_end >= 0:
        end = max(at, page.body_end)
        image = f'<img src="{pixel}" width="1" height="1" alt="" style="display:block;border:0">'
        pieces += (page.text[at:end], image)
        at = end
    return "".join((*pieces, page.text[at:]))


def rewrite_text(plain: Plain, address: Address) -> str:
    """The text with each link replaced."""
    pieces: list[str] = []
    at = 0
    for link in plain.links:
        pieces += (plain.text[at : link.start], address(link.url))
        at = link.end
    return "".join((*pieces, plain.text[at:]))


def web_url(text: str) -> str | None:
    """A link's target as browsers read it, in ASCII and fit for a header; None for what is no web address.

    Relative ones, other schemes, addresses that name a user, and those longer than 2,048 bytes are none: they are
    left as they are.
    """
    url = _web_url(text)
    if url is not None and len(url) > URL_BYTES_MAX:
        metrics.LIMIT_HITS.labels("tracked_url_bytes").inc()
        return None
    return url


@lru_cache(_URLS_REMEMBERED_MAX)
def _web_url(text: str) -> str | None:
    """The same, of whatever length; many links are the same in every mail, or in both parts of one."""
    text = re.sub(r"[\t\n\r]+", "", text.strip("".join(map(chr, range(0x21)))))
    if not _WEB.match(text):
        return None
    try:
        parts = urlsplit(text)
        host = ascii_domain(parts.hostname or "")
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return None
    if not host or "@" in parts.netloc or not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", host):
        return None
    host = f"[{host}]" if ":" in host else host
    rest = text[text.index("//") + 2 + len(parts.netloc) :]
    return f"{parts.scheme}://{host}{port}{quote(rest, safe=_SAFE)}"


def _link(text: str, start: int, end: int) -> list[Link]:
    """The target of the first `href` of a tag, if it is one that is rewritten."""
    found = None
    for attribute in _ATTRIBUTES.finditer(text, start, end - 1):
        name = attribute["name"].lower()
        if name == OPT_OUT:
            return []
        if name == "href" and found is None:
            found = attribute
    for quoting in ("double", "single", "bare") if found else ():
        assert found is not None
        if found[quoting] is not None:
            url = web_url(_unescaped(found[quoting]))
            mark = quoting != "bare"
            return [] if url is None else [Link(found.start(quoting) - mark, found.end(quoting) + mark, url)]
    return []


def _bounded(links: list[Link]) -> tuple[Link, ...]:
    if len(links) > LINKS_MAX:
        metrics.LIMIT_HITS.labels("tracked_links").inc()
    return tuple(links[:LINKS_MAX])


def _unescaped(value: str) -> str:
    """An attribute's value without character references; `&copy=1` in one is no reference, as in `?a=1&copy=1`."""
    return _REFERENCE.sub(_referred, value) if "&" in value else value


def _referred(found: re.Match[str]) -> str:
    if found[3] is None:
        code = int(found[1], 16) if found[1] else int(found[2][:8])
        is_fit = 0 < code <= _CODE_MAX and code not in _SURROGATES
        return (chr(code) if is_fit else "\N{REPLACEMENT CHARACTER}") + found["next"]
    ended = found[0].endswith((";", ";="))
    if not ended and found["next"]:
        return found[0]
    character = html5.get(f"{found[3]};" if ended else found[3])
    return found[0] if character is None else character + found["next"]
