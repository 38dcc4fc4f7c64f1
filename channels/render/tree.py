"""What is done to a parsed template before its first render: corrected, and checked filter by filter."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

from liquid import RenderContext as LiquidContext
from liquid.ast import Node
from liquid.builtin.expressions import KeywordArgument, LoopExpression, PositionalArgument
from liquid.builtin.expressions.filtered import Filter as FilterCall
from liquid.builtin.expressions.logical import ContainsExpression, EqExpression, NeExpression
from liquid.builtin.expressions.path import Path
from liquid.builtin.expressions.primitive import RangeLiteral
from liquid.builtin.tags.case_tag import _AnyExpression
from liquid.exceptions import LiquidSyntaxError
from liquid.expression import Expression
from liquid.token import TOKEN_IDENTSTRING, Token

from channels.render.errors import RenderLimit
from channels.render.filter_table import Filter, weight
from channels.render.limits import LIST_ITEMS_MAX
from channels.render.scope import Scope
from channels.render.values import equal, is_missing
from streams.campaigns.template_fields import ROOT_PREFIX

_PARTS: Final = (Node, Expression, FilterCall, KeywordArgument, PositionalArgument)


def correct(nodes: Sequence[Node], filters: Mapping[str, Filter]) -> None:
    """Give a parsed template, in place, Braze's equality and bounded ranges.

    Raises:
        LiquidSyntaxError: a filter is unknown, or has arguments that it cannot take.
        RecursionError: a condition has too many parts.
    """
    for node in nodes:
        _corrected(node, filters)


def _corrected(part: object, filters: Mapping[str, Filter]) -> object:
    """Return what is to stand in the place of a part of the tree, all below it corrected."""
    if isinstance(part, list):
        return [_corrected(item, filters) for item in part]
    if not isinstance(part, _PARTS):
        return part
    for slot in _slots(type(part)):
        value = getattr(part, slot, None)
        if isinstance(value, (list, *_PARTS)):
            setattr(part, slot, _corrected(value, filters))
    if isinstance(part, FilterCall):
        _check(part, filters)
    if isinstance(part, Path):
        _check_root(part)
    return _replaced(part)


def _slots(kind: type) -> Iterator[str]:
    for base in kind.__mro__:
        yield from getattr(base, "__slots__", ())


def _replaced(part: object) -> object:
    """Return our own expression for one of python-liquid's that does not do what Liquid does."""
    if isinstance(part, EqExpression):
        return Equal(part.token, part.left, part.right)
    if isinstance(part, NeExpression):
        return NotEqual(part.token, part.left, part.right)
    if isinstance(part, ContainsExpression):
        return Contains(part.token, part.left, part.right)
    if isinstance(part, _AnyExpression):
        return EqualToAny(part.token, part.left, part.expressions)
    if isinstance(part, RangeLiteral):
        return Range(part.token, part.start, part.stop)
    if isinstance(part, LoopExpression):
        return Loop(
            *(part.token, part.identifier, part.iterable),
            limit=part.limit,
            offset=part.offset,
            reversed_=part.reversed,
            cols=part.cols,
        )
    return part


def _check_root(path: Path) -> None:
    """Refuse a path whose first name is computed or disguised: it could read what `fields_read` never saw."""
    head = path.path[0]
    disguised = path.token.kind == TOKEN_IDENTSTRING and str(head).startswith(ROOT_PREFIX)
    if disguised or not isinstance(head, str):
        raise LiquidSyntaxError("a path must begin with a plain name", token=path.token)


def _check(call: FilterCall, filters: Mapping[str, Filter]) -> None:
    """Refuse a filter that is unknown or has arguments that it cannot take."""
    known = filters.get(call.name)
    if known is None:
        raise LiquidSyntaxError(f"unknown filter '{call.name}'", token=call.token)
    named = {argument.name: None for argument in call.args if isinstance(argument, KeywordArgument)}
    positional = [None for argument in call.args if not isinstance(argument, KeywordArgument)]
    try:
        known.signature.bind(None, *positional, **named)
    except TypeError as error:
        raise LiquidSyntaxError(f"filter '{call.name}': {error}", token=call.token) from error


class Equal(EqExpression):
    """`a == b`."""

    __slots__ = ()

    def evaluate(self, context: LiquidContext) -> bool:
        """Return whether both are equal."""
        return equal(self.left.evaluate(context), self.right.evaluate(context))


class NotEqual(NeExpression):
    """`a != b`."""

    __slots__ = ()

    def evaluate(self, context: LiquidContext) -> bool:
        """Return whether both differ."""
        return not equal(self.left.evaluate(context), self.right.evaluate(context))


class Contains(ContainsExpression):
    """`a contains b`."""

    __slots__ = ()

    def evaluate(self, context: LiquidContext) -> object:
        """Return whether a text or a list holds a value; a long one counts as work."""
        cast("Scope", context).charge(weight(self.left.evaluate(context)))
        return super().evaluate(context)


class EqualToAny(_AnyExpression):
    """`case a` and `when b, c`."""

    __slots__ = ()

    def evaluate(self, context: LiquidContext) -> list[bool]:
        """Return, for each value of the `when`, whether the case is equal to it."""
        left = self.left.evaluate(context)
        return [equal(left, right.evaluate(context)) for right in self.expressions]


class Range(RangeLiteral):
    """`(a..b)`."""

    __slots__ = ()

    def evaluate(self, context: LiquidContext) -> range:
        """Return the range; raises RenderLimit when it is longer than any loop may be."""
        found = super().evaluate(context)
        if found.stop - found.start > LIST_ITEMS_MAX:
            raise RenderLimit("list_items", LIST_ITEMS_MAX)
        return found


class Loop(LoopExpression):
    """`item in list limit: n offset: m`; a limit of 0 or less means no iteration, a missing one no limit."""

    __slots__ = ()

    def _to_int(self, obj: object, *, token: Token) -> int | None:  # type: ignore[override]
        return None if is_missing(obj) else super()._to_int(obj, token=token)

    def _slice(
        self,
        it: Iterator[object],
        length: int,
        context: LiquidContext,
        *,
        limit: int | None,
        offset: int | str | None,
    ) -> tuple[Iterator[object], int]:
        if limit is not None and limit <= 0:
            return iter(()), 0
        return super()._slice(it, length, context, limit=limit, offset=offset)
