"""Shopify's filters where python-liquid differs from Liquid, or could be made to build huge values."""

import html
from collections.abc import Callable, Iterable
from typing import Final

from liquid.filter import flatten

from channels.render.dates import Unfit
from channels.render.errors import RenderLimit
from channels.render.filters import rounded
from channels.render.limits import VALUE_CHARS_MAX
from channels.render.values import MISSING, identity, is_missing, to_text

_ROUND_DIGITS_MAX: Final = 15
_BLOCKS: Final = (("<script", "</script>"), ("<!--", "-->"), ("<style", "</style>"), ("<", ">"))


def escape(text: str) -> str:
    """Return a text for HTML, with the references that Ruby writes."""
    return html.escape(text).replace("&#x27;", "&#39;")


def escape_once(text: str) -> str:
    """Return a text for HTML; what is escaped already stays as it is."""
    return escape(html.unescape(text))


def join(value: object, separator: object = " ") -> str:
    """Return the items of a list with a text between them; anything else is a list of itself."""
    texts = [to_text(item) for item in _items(value)]
    between = to_text(separator)
    _check_chars(sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


def replace(text: str, old: str, new: str = "") -> str:
    """Return a text with every occurrence of another one replaced."""
    _check_chars(len(text) + text.count(old) * len(new))
    return text.replace(old, new)


def round_(value: object, digits: object = 0) -> int | float:
    """Return a number rounded, halves away from zero; without digits, or with none, an integer."""
    places = int(to_text(digits) or 0)
    places = min(max(places, -_ROUND_DIGITS_MAX), _ROUND_DIGITS_MAX)
    result = rounded(value, places)
    return float(result) if places > 0 else int(result)


def strip_html(text: str) -> str:
    """Return a text without tags, comments, scripts and styles, in time linear in its length."""
    for opening, closing in _BLOCKS:
        text = _without(text, opening, closing)
    return text


def truncate(text: str, length: object = 50, ending: str = "...") -> str:
    """Return a text cut to so many characters, the ending among them; a shorter one as it is."""
    chars = int(to_text(length))
    return text if len(text) <= chars else text[: max(chars - len(ending), 0)] + ending


def truncatewords(text: str, length: object = 15, ending: str = "...") -> str:
    """Return the first so many words, at least one, and an ending; a shorter text as it is."""
    count = max(int(to_text(length)), 1)
    words = text.split()
    return text if len(words) <= count else " ".join(words[:count]) + ending


def uniq(value: object, key: object = None) -> list[object]:
    """Return the items of a list, or those that differ under a key, each once, in their order."""
    take = _under(to_text(key)) if not is_missing(key) else _itself
    first: dict[bytes, object] = {}
    for item in _items(value):
        first.setdefault(identity(take(item)), item)
    return list(first.values())


def _itself(item: object) -> object:
    return item


def _under(key: str) -> Callable[[object], object]:
    def take(item: object) -> object:
        if not isinstance(item, dict):
            raise Unfit("the list holds what is no object")
        return item.get(key, MISSING)

    return take


def _items(value: object) -> list[object]:
    if is_missing(value):
        return []
    return flatten(value) if isinstance(value, Iterable) and not isinstance(value, str | dict) else [value]


def _without(text: str, opening: str, closing: str) -> str:
    kept: list[str] = []
    position = 0
    while (start := text.find(opening, position)) >= 0 and (end := text.find(closing, start)) >= 0:
        kept.append(text[position:start])
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def _check_chars(chars: int) -> None:
    """Refuse a text before it is built."""
    if chars > VALUE_CHARS_MAX:
        raise RenderLimit("value_chars", VALUE_CHARS_MAX)
