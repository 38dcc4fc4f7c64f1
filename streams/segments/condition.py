"""One condition on one value: an attribute of a profile, or a property of an event."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from streams.errors import BadDefinition
from streams.events import JSONValue, Properties
from streams.times import parse_time

Check: TypeAlias = Callable[[JSONValue], bool]


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one operator. `over`, `under`, `before` and `after` are strict."""

    is_: JSONValue = msgspec.field(name="is", default=msgspec.UNSET)
    is_not: JSONValue = msgspec.UNSET
    contains: str | list[str] | msgspec.UnsetType = msgspec.UNSET
    over: int | float | msgspec.UnsetType = msgspec.UNSET
    under: int | float | msgspec.UnsetType = msgspec.UNSET
    before: str | msgspec.UnsetType = msgspec.UNSET
    after: str | msgspec.UnsetType = msgspec.UNSET
    exists: bool | msgspec.UnsetType = msgspec.UNSET


OPERATORS: Final = ("is", "is_not", "contains", "over", "under", "before", "after", "exists")


def compile_condition(condition: Condition) -> Check:
    """A function of the value (None: there is none). Raises BadDefinition unless one operator is given."""
    given = [name for name in OPERATORS if _operand(condition, name) is not msgspec.UNSET]
    if len(given) != 1:
        raise BadDefinition(f"give exactly one of {', '.join(OPERATORS)}; found {', '.join(given) or 'none'}")
    name = given[0]
    return _COMPILERS[name](_operand(condition, name))


def _operand(condition: Condition, name: str) -> JSONValue:
    return getattr(condition, "is_" if name == "is" else name)


def same(left: JSONValue, right: JSONValue) -> bool:
    """Equality by kind: true is not 1, 1 is 1.0, text is case-sensitive."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _is(operand: JSONValue) -> Check:
    if isinstance(operand, list):
        options = tuple(operand)
        return lambda value: any(same(value, option) for option in options)
    if isinstance(operand, bool):
        return lambda value: value is operand
    return lambda value: bool(value == operand) and not isinstance(value, bool)


def _is_not(operand: JSONValue) -> Check:
    holds = _is(operand)
    return lambda value: not holds(value)


def _contains(operand: str | list[str]) -> Check:
    parts = tuple(operand) if isinstance(operand, list) else (operand,)

    def check(value: JSONValue) -> bool:
        if isinstance(value, str):
            return any(part in value for part in parts)
        return isinstance(value, list) and any(part in value for part in parts)

    return check


def _is_number(value: JSONValue) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _over(operand: float) -> Check:
    return lambda value: _is_number(value) and value > operand


def _under(operand: float) -> Check:
    return lambda value: _is_number(value) and value < operand


def _moment(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as error:
        raise BadDefinition(str(error)) from None


def _time_of(value: JSONValue) -> int | None:
    """The time that a value says, None where it says none."""
    if not isinstance(value, str):
        return None
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        return None


def _before(operand: str) -> Check:
    limit_ms = _moment(operand)
    return lambda value: (time_ms := _time_of(value)) is not None and time_ms < limit_ms


def _after(operand: str) -> Check:
    limit_ms = _moment(operand)
    return lambda value: (time_ms := _time_of(value)) is not None and time_ms > limit_ms


def _exists(operand: bool) -> Check:  # noqa: FBT001 (an operand like the others)
    return lambda value: (value is not None) is operand


_COMPILERS: Final[dict[str, Callable[..., Check]]] = {
    "is": _is,
    "is_not": _is_not,
    "contains": _contains,
    "over": _over,
    "under": _under,
    "before": _before,
    "after": _after,
    "exists": _exists,
}


Where: TypeAlias = dict[str, JSONValue]


def compile_where(where: Where | None) -> Callable[[Properties], bool] | None:
    """A function of an event's properties that holds when every condition does; None without conditions.

    A path may be dotted for nested objects. A plain value means `is`.

    Raises:
        BadDefinition: naming the path whose condition cannot be used.
    """
    if not where:
        return None
    checks = tuple((tuple(path.split(".")), _where_check(path, spec)) for path, spec in sorted(where.items()))
    if len(checks) == 1 and len(checks[0][0]) == 1:
        ((name,), alone) = checks[0]
        operand = where[name]
        if isinstance(operand, (int, float, str)) and not isinstance(operand, bool):  # the most frequent by far
            return lambda properties: properties.get(name) == operand and not isinstance(properties[name], bool)
        return lambda properties: alone(properties.get(name))
    return lambda properties: all(check(_dig(properties, path)) for path, check in checks)


def _where_check(path: str, spec: JSONValue) -> Check:
    try:
        if isinstance(spec, Mapping):
            return compile_condition(msgspec.convert(spec, Condition))
        return _is(spec)
    except (msgspec.ValidationError, BadDefinition) as error:
        raise BadDefinition(f"where {path}: {error}") from None


def _dig(properties: Properties, path: tuple[str, ...]) -> JSONValue:
    value: JSONValue = properties
    for part in path:
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value
