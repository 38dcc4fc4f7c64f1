"""Braze's `${…}` syntax as plain Liquid, with every place traceable to the original text."""

from bisect import bisect_right
from typing import Final, NamedTuple

import msgspec

from channels.render.errors import TemplateError
from streams.campaigns.template_fields import ROOT_PREFIX, Braces, Fault, Field, Mark, scan

NAMESPACES: Final = frozenset(
    {
        *("api_trigger_properties", "app", "campaign", "canvas", "canvas_entry_properties", "card"),
        *("context", "custom_attribute", "event_properties", "most_recently_used_device"),
        *("preference_center", "sms", "subscribed_state", "targeted_device", "whats_app"),
    }
)
"""What may stand before `.${…}`."""

NOT_SUPPORTED_YET: Final = frozenset({"content_blocks"})


class Segment(NamedTuple):
    """A stretch of the translation, from `at` to the next one, and what it stands for."""

    at: int
    start: int
    end: int
    is_copy: bool


class Translation(msgspec.Struct, frozen=True):
    """Plain Liquid, and the way back from its places to those of the source."""

    source: str
    text: str
    segments: tuple[Segment, ...]

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Return the stretch of the source that `text[start:end]` stands for, at least one character."""
        first, last = self._segment(start), self._segment(max(start, end - 1))
        begin = first.start + (start - first.at if first.is_copy else 0)
        stop = last.start + (end - last.at) if last.is_copy else last.end
        return begin, max(stop, begin + 1)

    def _segment(self, index: int) -> Segment:
        return self.segments[max(bisect_right(self.segments, index, key=lambda segment: segment.at) - 1, 0)]


def root(namespace: str) -> str:
    """Return the name under which a namespace is kept; a template that uses such a name is refused."""
    return f"{ROOT_PREFIX}{namespace or 'profile'}"


def translate(source: str, *, html: bool = False) -> Translation:
    """Return the source as plain Liquid.

    A text without `${…}`, nested braces and, with `html`, comments comes back as it is.

    Raises:
        TemplateError: braces or tags that never end, `{{{`, a name or a namespace that cannot be.
    """
    text: list[str] = []
    segments: list[Segment] = []
    at = position = 0
    for mark in scan(source, html=html):
        replacement = _replacement(source, mark)
        segments.append(Segment(at, position, mark.start, is_copy=True))
        at += mark.start - position
        segments.append(Segment(at, mark.start, mark.end, is_copy=False))
        at += len(replacement)
        text += source[position : mark.start], replacement
        position = mark.end
    text.append(source[position:])
    segments.append(Segment(at, position, len(source), is_copy=True))
    return Translation(source, "".join(text), tuple(segments))


def _replacement(source: str, mark: Mark) -> str:
    """Return the plain Liquid for a mark."""
    if isinstance(mark, Fault):
        raise TemplateError(mark.message, source, mark.start, mark.end)
    if isinstance(mark, Field):
        return _path(source, mark)
    return " " if isinstance(mark, Braces) else ""


def _path(source: str, field: Field) -> str:
    """Return a field as a path in quoted brackets, which takes spaces, dots and words of Liquid.

    It begins with a word, because python-liquid takes nothing else as argument of a filter; after a
    tag's name, as in `{%if${x}%}`, a space keeps both apart.
    """
    if field.namespace in NOT_SUPPORTED_YET:
        raise TemplateError(f"not supported yet: {field.namespace}", source, field.start, field.end)
    if field.namespace and field.namespace not in NAMESPACES:
        known = ", ".join(sorted(NAMESPACES))
        raise TemplateError(
            f"unknown namespace '{field.namespace}': use one of {known}", source, field.start, field.end
        )
    quote = "'" if '"' in field.name else '"'
    filters = f" | {field.filters}" if field.filters else ""
    space = " " if source[field.start - 1].isalnum() else ""
    return f"{space}{root(field.namespace)}[{quote}{field.name}{quote}]{filters}"
