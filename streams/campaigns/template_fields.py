"""What a message template reads, found by scanning its `${…}` syntax.

Two readers share this one scan, so that they cannot disagree: `fields_read`, which decides what a send
carries, and the renderer, which turns every `${…}` into a path of plain Liquid.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeAlias

import msgspec

BRACKETS_MAX: Final = 200
"""Opening brackets in one tag or output; python-liquid looks ahead from each of them."""

SPACES_MAX: Final = 200
"""White space in a tag that holds nothing else; python-liquid's lexer is quadratic in it."""

RESERVED: Final = frozenset({"custom_attribute", "event_properties", "subscribed_state"})
"""Namespaces that are useless without `.${…}`: to name them bare is a mistake, and is reported."""


ROOT_PREFIX: Final = "__"
"""How the renderer's own names begin; a template that uses one could read what nobody expects it to."""


class TemplateFields(msgspec.Struct, frozen=True):
    """The names that a template reads, each tuple sorted and without repeats.

    `other` holds `namespace.name` of every further namespace, such as `campaign.name`.
    """

    profile: tuple[str, ...] = ()
    custom: tuple[str, ...] = ()
    event_properties: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


class Field(NamedTuple):
    """A `${name}` with its namespace (empty for the profile), and the filters written inside it."""

    start: int
    end: int
    namespace: str
    name: str
    filters: str


class Braces(NamedTuple):
    """A `{{` or `}}` inside a tag or an output, which Braze allows there and plain Liquid does not."""

    start: int
    end: int


class HtmlComment(NamedTuple):
    """A `<!-- … -->`, which is removed before anything in it could run."""

    start: int
    end: int


class Fault(NamedTuple):
    """Where and why a text is not a template; a scan ends with it."""

    start: int
    end: int
    message: str


Mark: TypeAlias = Field | Braces | HtmlComment | Fault


class _Part(NamedTuple):
    """One tag, output or comment that has been read: where it ends, a tag's name, what was found."""

    end: int
    tag: str
    marks: list[Mark]


_OPENING: Final = re.compile(r"\{\{|\{%")
_OPENING_HTML: Final = re.compile(r"<!--|\{\{|\{%")
_CONDITIONAL: Final = re.compile(r"<!--\s{0,9}(?:\[if(?:[^\]]{0,200}\]>(?:<!-->|-->)?)?|<!)")
_VERBATIM: Final = re.compile(r"\{%-?\s*(raw|doc)\s*-?%\}")
_VERBATIM_END: Final = {name: re.compile(rf"\{{%-?\s*end{name}\s*-?%\}}") for name in ("raw", "doc")}
_TAG: Final = re.compile(r"\{%-?\s*(#|\w+)")

# What matters inside a tag or an output. A quoted text is skipped; in an output it ends before any `}}`,
# because there the first `}}` closes, as in Liquid.
_INSIDE: Final = r"""
    (?P<quoted> {quoted} )
  | (?: (?P<space> \w[\w-]* ) \s*\.\s* )? \$\{{ (?P<name> [^{{}}\n]* ) \}}
  | (?P<word> \w[\w-]* )
  | (?P<open> \{{\{{-? )
  | (?P<close> -?\}}\}} )
  | (?P<stray> \$ )
"""
_IN_TAG: Final = re.compile(_INSIDE.format(quoted=r""""[^"]*" | '[^']*'"""), re.VERBOSE)
_IN_OUTPUT: Final = re.compile(
    _INSIDE.format(quoted=r""""(?:(?!\{\{|\}\})[^"])*" | '(?:(?!\{\{|\}\})[^'])*'"""), re.VERBOSE
)


def fields_read(text: str, *, html: bool = False) -> TemplateFields:
    """Return the names that rendering this text could read; never less, whatever the user's data.

    Pass the same `html` as to the renderer. A text that is no template gives what was found before the
    fault: whoever compiles it is told. Costs one pass over the text.
    """
    found: dict[str, set[str]] = {"": set(), "custom_attribute": set(), "event_properties": set()}
    other: set[str] = set()
    for mark in scan(text, html=html):
        if isinstance(mark, Field):
            if mark.namespace in found:
                found[mark.namespace].add(mark.name)
            else:
                other.add(f"{mark.namespace}.{mark.name}")
    return TemplateFields(
        profile=tuple(sorted(found[""])),
        custom=tuple(sorted(found["custom_attribute"])),
        event_properties=tuple(sorted(found["event_properties"])),
        other=tuple(sorted(other)),
    )


def fields_joined(parts: Iterable[TemplateFields]) -> TemplateFields:
    """Return what several templates read together, such as the subject and the body of one mail."""
    every = list(parts)
    return TemplateFields(
        profile=tuple(sorted({name for part in every for name in part.profile})),
        custom=tuple(sorted({name for part in every for name in part.custom})),
        event_properties=tuple(sorted({name for part in every for name in part.event_properties})),
        other=tuple(sorted({name for part in every for name in part.other})),
    )


def scan(text: str, *, html: bool = False) -> Iterator[Mark]:
    """Yield, in order, what differs from plain Liquid; what lies between two marks is plain Liquid.

    Nothing inside `{% raw %}`, `{% doc %}` and `{% comment %}` is marked. With `html`, HTML comments are;
    Outlook's conditional ones (`<!--[if …`) are content, not comments. A `Fault` is the last mark.
    """
    opening = _OPENING_HTML if html else _OPENING
    position, comment_depth = 0, 0
    while found := opening.search(text, position):
        part = _skip(text, found.start()) if comment_depth else _read(text, found.start())
        if part.end < 0:  # an HTML comment that never ends is text, and so is every later one
            opening, position = _OPENING, found.end()
            continue
        if part.marks and isinstance(part.marks[-1], Fault):
            yield part.marks[-1]
            return
        yield from part.marks
        comment_depth = max(comment_depth + {"comment": 1, "endcomment": -1}.get(part.tag, 0), 0)
        position = part.end


def _read(text: str, at: int) -> _Part:
    """Read the construct that opens at a position."""
    if text.startswith("<", at):
        return _html_comment(text, at)
    return _output(text, at) if text.startswith("{{", at) else _tag(text, at)


def _skip(text: str, at: int) -> _Part:
    """Read the construct that opens at a position inside `{% comment %}`, where anything goes that ends."""
    if text.startswith("<", at) or _VERBATIM.match(text, at):
        return _read(text, at)
    tag = _TAG.match(text, at)
    if not tag and text.startswith("{%", at):
        return _Part(at + 2, "", [])
    begin, sign = (tag.end(), "%}") if tag else (at + 2, "}}")
    end = text.find(sign, begin)
    if end < 0:
        return _faulty(at, at + 2, f"{text[at : at + 2]} is never closed: add {sign}")
    if end - begin > SPACES_MAX and text[begin:end].isspace():
        return _faulty(at, at + 2, f"more than {SPACES_MAX} spaces with nothing among them")
    return _Part(end + 2, tag[1] if tag else "", [])


def _html_comment(text: str, at: int) -> _Part:
    if conditional := _CONDITIONAL.match(text, at):
        return _Part(conditional.end(), "", [])
    end = text.find("-->", at + len("<!"))
    return _Part(end + len("-->"), "", [HtmlComment(at, end + len("-->"))]) if end >= 0 else _Part(-1, "", [])


def _tag(text: str, at: int) -> _Part:
    """Read `{% … %}`; a `raw` or `doc` block is read whole."""
    if verbatim := _VERBATIM.match(text, at):
        name = verbatim[1]
        if not (closing := _VERBATIM_END[name].search(text, verbatim.end())):
            return _faulty(at, verbatim.end(), f"{{% {name} %}} is never closed: add {{% end{name} %}}")
        return _Part(closing.end(), name, [])
    if not (tag := _TAG.match(text, at)):
        return _faulty(at, at + 2, "a tag needs a name, as in {% if … %}")
    end = text.find("%}", tag.end())
    if end < 0:
        return _faulty(at, tag.end(), "{% is never closed: add %}")
    if end - tag.end() > SPACES_MAX and text[tag.end() : end].isspace():
        return _faulty(at, tag.end(), f"more than {SPACES_MAX} spaces with nothing among them")
    marks: list[Mark] = []
    depth = 0
    for found in _IN_TAG.finditer(text, tag.end(), end) if tag[1] != "#" else ():
        depth += bool(found["open"]) - bool(found["close"])
        if depth < 0:
            return _faulty(*found.span(), "}} without {{")
        marks.extend(_inside(text, found, tag.end()))
    if depth:
        return _faulty(at, tag.end(), "{{ in a tag is never closed: add }}")
    return _checked(text, _Part(end + 2, tag[1], marks), at)


def _output(text: str, at: int) -> _Part:
    """Read `{{ … }}`; a nested `{{x}}` is allowed in it."""
    if text.startswith("{{{", at):
        return _faulty(at, at + 3, "{{{ is not allowed: write two braces, {{ … }}")
    marks: list[Mark] = []
    depth = 0
    for found in _IN_OUTPUT.finditer(text, at + 2):
        if found["close"] and not depth:
            if not text[at + 2 : found.start()].strip(" \t\r\n\f\v-"):
                return _faulty(at, found.end(), "nothing to print between {{ and }}")
            return _checked(text, _Part(found.end(), "", marks), at)
        depth += bool(found["open"]) - bool(found["close"])
        marks.extend(_inside(text, found, at + 2))
    return _faulty(at, at + 2, "{{ is never closed: add }}")


def _inside(text: str, found: re.Match[str], first: int) -> list[Mark]:
    """Return what one match inside a tag or an output means; `first` is where its expression begins."""
    start, end = found.span()
    if found["name"] is not None:
        return [_field(text, found, first)]
    if found["open"] or found["close"]:
        return [Braces(start, end)]
    if found["stray"]:
        return [Fault(start, end, "$ must open a name, as in ${first_name}")]
    word = found["word"] or ""
    if word in RESERVED and text[start - 1] != ".":
        return [Fault(start, end, f"write {word}.${{name}}: without ${{…}} it reads nothing")]
    if word.startswith(ROOT_PREFIX):
        return [Fault(start, end, f"a name may not begin with {ROOT_PREFIX}")]
    return []


def _field(text: str, found: re.Match[str], first: int) -> Mark:
    """Return the field of a `${…}`, or why it is none."""
    start, end = found.span()
    name, _, filters = found["name"].partition("|")
    before = text[start - 1] if start > first else " "
    if not name.strip():
        return Fault(start, end, "a name is missing, as in ${first_name}")
    if "'" in name and '"' in name:
        return Fault(start, end, "a name may hold ' or \" but not both")
    if before == "." or before.isalnum() or before in "_]'\"":
        return Fault(start, end, "${…} must stand alone or after one namespace, as in custom_attribute.${x}")
    return Field(start, end, found["space"] or "", name.strip(), filters.strip())


def _checked(text: str, part: _Part, at: int) -> _Part:
    """Return the part, or its first fault, or one for more brackets than python-liquid reads quickly."""
    for mark in part.marks:
        if isinstance(mark, Fault):
            return _Part(part.end, "", [mark])
    if text.count("(", at, part.end) + text.count("[", at, part.end) > BRACKETS_MAX:
        return _faulty(at, at + 2, f"more than {BRACKETS_MAX} brackets in one place")
    return part


def _faulty(start: int, end: int, message: str) -> _Part:
    return _Part(end, "", [Fault(start, end, message)])
