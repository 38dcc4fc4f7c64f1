"""Which filters a template may use, and how each is kept within the limits."""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol

from liquid import Environment
from liquid.builtin.filters import array, string
from liquid.builtin.filters import math as arithmetic
from liquid.builtin.filters.misc import default, size
from liquid.exceptions import FilterArgumentError, LiquidError

from channels.render import dates, filters, shopify
from channels.render.errors import RenderLimit
from channels.render.limits import LIST_ITEMS_MAX, NUMBER_BITS_MAX, VALUE_CHARS_MAX
from channels.render.values import MISSING, to_text

CHARS_PER_STEP: Final = 256
"""How much text in a filter counts as one step of work."""

ITEMS_PER_STEP: Final = 8
"""How many items of a list in a filter do, which may be sorted."""

UNFIT: Final = (LiquidError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a filter raises for values that it was not made for."""

Function = Callable[..., object]


class Worker(Protocol):
    """The part of a render's state that a filter needs."""

    now_s: float | None

    def charge(self, steps: int) -> None:
        """Count steps of work; raises RenderLimit when there were too many."""


class Filter(NamedTuple):
    """A filter that a template may name: `run(worker, value, *arguments)` and what it may be given."""

    run: Function
    signature: inspect.Signature


def filter_table(env: Environment) -> dict[str, Filter]:
    """Return every filter of Braze by name, python-liquid's bound to the environment where they ask for it.

    Left out on purpose, because Braze has them not: find_index, money_with_currency,
    money_without_currency, camelize, handleize, pluralize, lstrip, rstrip, format_address, highlight, and
    what python-liquid adds to Liquid (safe, escapejs, squish, …).
    """
    table = {name: _filter(name, function) for name, function in _PLAIN.items()}
    for name, function in _TEXTS.items():
        table[name] = _filter(name, function, of_text=True)
    for name in _NEED_ENVIRONMENT:
        function = partial(_NEED_ENVIRONMENT[name], environment=env)
        table[name] = _filter(name, function, of_text=name not in {"first", "last"})
    table["date"] = _filter("date", dates.date, tells_time=True)
    table["time_zone"] = _filter("time_zone", dates.time_zone, tells_time=True)
    return table


def _filter(name: str, function: Function, *, of_text: bool = False, tells_time: bool = False) -> Filter:
    """Return the filter, which turns every misfit into an error of the template, at its place in it."""

    def run(worker: Worker, value: object, *args: object, **kwargs: object) -> object:
        if of_text:
            value, args = to_text(value), tuple(map(to_text, args))
        if tells_time:
            kwargs["now_s"] = worker.now_s
        worker.charge(weight(value))
        try:
            result = function(value, *args, **kwargs)
        except UNFIT as error:
            raise FilterArgumentError(f"{name}: {_reason(error, value)}", token=None) from error
        _check(name, result)
        worker.charge(weight(result))
        return result

    return Filter(run, inspect.signature(function))


def weight(value: object) -> int:
    """Return the steps of work that a value costs to look through."""
    if isinstance(value, str):
        return len(value) // CHARS_PER_STEP
    return len(value) // ITEMS_PER_STEP if isinstance(value, list | tuple | range) else 0


def _check(name: str, result: object) -> None:
    """Refuse a result that is too large, or no number any more."""
    if isinstance(result, str):
        if len(result) > VALUE_CHARS_MAX:
            raise RenderLimit("value_chars", VALUE_CHARS_MAX)
    elif isinstance(result, list | tuple):
        if len(result) > LIST_ITEMS_MAX:
            raise RenderLimit("list_items", LIST_ITEMS_MAX)
    elif isinstance(result, int):
        if result.bit_length() > NUMBER_BITS_MAX:
            raise RenderLimit("number_bits", NUMBER_BITS_MAX)
    elif isinstance(result, float) and not math.isfinite(result):
        raise FilterArgumentError(f"{name}: the number is not finite", token=None)


def _reason(error: BaseException, value: object) -> str:
    """Say why a filter failed, without the value: it may be a person's."""
    if isinstance(error, dates.Unfit):
        return str(error)
    if isinstance(error, ZeroDivisionError) or isinstance(error.__cause__, ZeroDivisionError):
        return "divides by zero"
    return f"cannot be applied to {kind(value)}, or not with these arguments"


def kind(value: object) -> str:
    """Name the type of a value in the words of a template's author."""
    if value is MISSING or value is None:
        return "a missing value"
    names = ((bool, "a boolean"), (int | float, "a number"), (str, "a text"), (Mapping, "an object"))
    return next((name for type_, name in names if isinstance(value, type_)), "a list")


_PLAIN: Final[Mapping[str, Function]] = {
    "abs": arithmetic.abs_,
    "as_json_string": filters.as_json_string,
    "at_least": arithmetic.at_least,
    "at_most": arithmetic.at_most,
    "ceil": arithmetic.ceil,
    "compact": array.compact,
    "concat": array.concat,
    "default": default,
    "divided_by": arithmetic.divided_by,
    "find": array.find,
    "floor": arithmetic.floor,
    "has": array.has,
    "join": shopify.join,
    "map": array.map_,
    "minus": arithmetic.minus,
    "modulo": arithmetic.modulo,
    "money": filters.money,
    "number_with_delimiter": filters.number_with_delimiter,
    "plus": arithmetic.plus,
    "property_accessor": filters.property_accessor,
    "reject": array.reject,
    "reverse": array.reverse,
    "round": shopify.round_,
    "size": size,
    "slice": string.slice_,
    "sort": array.sort,
    "sort_natural": array.sort_natural,
    "sum": array.sum_,
    "times": arithmetic.times,
    "uniq": shopify.uniq,
    "where": array.where,
}

_TEXTS: Final[Mapping[str, Function]] = {
    "append": string.append,
    "base64_decode": string.base64_decode,
    "base64_encode": filters.base64_encode,
    "capitalize": string.capitalize,
    "downcase": string.downcase,
    "escape": shopify.escape,
    "escape_once": shopify.escape_once,
    "hmac_sha1_base64": filters.hmac_sha1_base64,
    "hmac_sha1_hex": filters.hmac_sha1_hex,
    "hmac_sha256": filters.hmac_sha256_hex,
    "hmac_sha256_base64": filters.hmac_sha256_base64,
    "hmac_sha256_hex": filters.hmac_sha256_hex,
    "hmac_sha512": filters.hmac_sha512,
    "json_escape": filters.json_escape,
    "json_parse": filters.json_parse,
    "md5": filters.md5,
    "prepend": string.prepend,
    "remove": string.remove,
    "remove_first": string.remove_first,
    "remove_last": string.remove_last,
    "replace": shopify.replace,
    "replace_first": string.replace_first,
    "replace_last": string.replace_last,
    "sha1": filters.sha1,
    "sha2": filters.sha2,
    "split": string.split,
    "strip": string.strip,
    "strip_html": shopify.strip_html,
    "truncate": shopify.truncate,
    "truncatewords": shopify.truncatewords,
    "upcase": string.upcase,
    "url_decode": string.url_decode,
    "url_escape": filters.url_escape,
    "url_param_escape": filters.url_param_escape,
}

_NEED_ENVIRONMENT: Final[Mapping[str, Function]] = {
    "first": array.first,
    "last": array.last,
    "newline_to_br": string.newline_to_br,
    "strip_newlines": string.strip_newlines,
    "url_encode": string.url_encode,
}
