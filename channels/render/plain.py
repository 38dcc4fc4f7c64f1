"""Templates of nothing but texts and fields, as most are: rendered without the machinery that tags and filters need."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

from liquid.ast import Node
from liquid.builtin.content import ContentNode
from liquid.builtin.expressions.arguments import PositionalArgument
from liquid.builtin.expressions.filtered import Filter, FilteredExpression
from liquid.builtin.expressions.path import Path
from liquid.builtin.expressions.primitive import StringLiteral

from channels.render.filter_table import UNFIT
from channels.render.limits import OUTPUT_BYTES_MAX
from channels.render.tags import PrintNode
from channels.render.values import to_text
from streams.campaigns.template_fields import ROOT_PREFIX

_FIELD_PARTS: Final = 2
_UNFIT: Final = (RecursionError, *UNFIT)


class _Piece(NamedTuple):
    """A text, or the field of a namespace that is printed; `default` is what an empty one gives, if that is said."""

    text: str
    namespace: str = ""
    field: str = ""
    default: str | None = None


class Plain:
    """A template that has no tags, and no filter but `default` with a text."""

    __slots__ = ("_pieces",)

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._pieces = tuple(pieces)

    def render(self, names: Mapping[str, object]) -> str | None:
        """The text for the namespaces by name.

        None for whatever is out of the ordinary, such as what breaks a limit: the whole machinery has to say of it.
        """
        parts: list[str] = []
        try:
            for text, namespace, field, default in self._pieces:
                if not namespace:
                    parts.append(text)
                    continue
                try:
                    value = cast("Mapping[str, object]", names[namespace])[field]
                except (KeyError, TypeError, IndexError):
                    value = None
                if default is not None and not isinstance(value, str | None):
                    return None
                parts.append((value or default) if default is not None else to_text(value))  # type: ignore[arg-type]
            found = "".join(parts)
            size = len(found) if found.isascii() else len(found.encode())
        except _UNFIT:
            return None
        return found if size <= OUTPUT_BYTES_MAX else None


def plain_of(nodes: Sequence[Node]) -> Plain | None:
    """A template's nodes as a plain one; None where there is more to it."""
    pieces = [_piece(node) for node in nodes]
    found = [piece for piece in pieces if piece is not None]
    return Plain(found) if len(found) == len(pieces) else None


def _piece(node: Node) -> _Piece | None:
    if type(node) is ContentNode:
        return _Piece(node.text)
    if type(node) is not PrintNode or type(node.expression) is not FilteredExpression:
        return None
    path, filters = node.expression.left, node.expression.filters or []
    if type(path) is not Path or len(path.path) != _FIELD_PARTS:
        return None
    namespace, field = path.path
    if not (isinstance(namespace, str) and namespace.startswith(ROOT_PREFIX) and isinstance(field, str)):
        return None
    if not filters:
        return _Piece("", namespace, field)
    default = _default(filters)
    return None if default is None else _Piece("", namespace, field, default)


def _default(filters: Sequence[Filter]) -> str | None:
    """The text of `default: 'text'`; None for any other filter, or more."""
    if len(filters) != 1 or filters[0].name != "default" or len(filters[0].args) != 1:
        return None
    argument = filters[0].args[0]
    if not isinstance(argument, PositionalArgument) or not isinstance(argument.value, StringLiteral):
        return None
    return str(argument.value.value)
