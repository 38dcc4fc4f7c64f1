"""Trees of filters: all, any, not; compiled once, asked often, explained to people."""

from collections.abc import Mapping
from typing import Final

import msgspec

from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.row import User
from streams.registry import collect
from streams.segments.filter import ChangesAt, Compiled, Filter, Test, earliest

TREE_DEPTH_MAX: Final = 16
TREE_NODES_MAX: Final = 256

FILTERS: Final = collect("streams.segments.filters", "FILTER", Filter)


def compile_tree(tree: JSONValue, where: str = "filter") -> Compiled:
    """Compile a filter tree: one key per node, `all`, `any`, `not` or the name of a filter.

    Raises:
        BadDefinition: naming the place within the tree and the fix.
    """
    nodes = [0]
    return _compile(tree, where, 1, nodes)


def _compile(tree: JSONValue, where: str, depth: int, nodes: list[int]) -> Compiled:
    nodes[0] += 1
    if depth > TREE_DEPTH_MAX or nodes[0] > TREE_NODES_MAX:
        raise BadDefinition(f"{where}: deeper than {TREE_DEPTH_MAX} or more than {TREE_NODES_MAX} nodes; split it")
    if not isinstance(tree, Mapping) or len(tree) != 1:
        raise BadDefinition(f"{where}: a node is a mapping with one key, such as {{purchases: {{at_least: 1}}}}")
    name, value = next(iter(tree.items()))
    place = f"{where}.{name}"
    if name == "not":
        return _negate(_compile(value, place, depth + 1, nodes))
    if name in ("all", "any"):
        if not isinstance(value, list) or not value:
            raise BadDefinition(f"{place}: give a list of one or more nodes")
        parts = [_compile(part, f"{place}[{at}]", depth + 1, nodes) for at, part in enumerate(value)]
        return _join(name, parts)
    return _leaf(name, value, place)


def _leaf(name: str, value: JSONValue, place: str) -> Compiled:
    spec = FILTERS.get(name)
    if spec is None:
        known = ", ".join(("all", "any", "not", *FILTERS))
        raise BadDefinition(f"{place}: {name!r} is no filter; use one of {known}")
    try:
        compiled = spec.compile(msgspec.convert(value, spec.params))
    except (msgspec.ValidationError, BadDefinition) as error:
        raise BadDefinition(f"{place}: {error}") from None
    inner = compiled.explain

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {"filter": name, "params": value, **inner(user, now_ms)}

    return msgspec.structs.replace(compiled, explain=explain)


def _negate(part: Compiled) -> Compiled:
    inner, inner_explain = part.test, part.explain

    def test(user: User, now_ms: int) -> bool:
        return not inner(user, now_ms)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {"not": inner_explain(user, now_ms), "holds": test(user, now_ms)}

    return msgspec.structs.replace(part, test=test, explain=explain)


def _join(name: str, parts: list[Compiled]) -> Compiled:
    tests = tuple(part.test for part in parts)
    explains = tuple(part.explain for part in parts)
    test = _all(tests) if name == "all" else _any(tests)

    def explain(user: User, now_ms: int) -> dict[str, JSONValue]:
        return {name: [part(user, now_ms) for part in explains], "holds": test(user, now_ms)}

    return Compiled(
        test if len(tests) > 1 else tests[0],
        tuple(sorted({change for part in parts for change in part.reads})),
        explain,
        _join_changes([part.changes_at for part in parts if part.changes_at is not None]),
        tuple(series for part in parts for series in part.series),
        tuple(sorted({segment for part in parts for segment in part.segments})),
    )


def _all(tests: tuple[Test, ...]) -> Test:
    def test(user: User, now_ms: int) -> bool:
        for part in tests:  # noqa: SIM110 (a generator costs more than most parts)
            if not part(user, now_ms):
                return False
        return True

    return test


def _any(tests: tuple[Test, ...]) -> Test:
    def test(user: User, now_ms: int) -> bool:
        for part in tests:  # noqa: SIM110 (a generator costs more than most parts)
            if part(user, now_ms):
                return True
        return False

    return test


def _join_changes(parts: list[ChangesAt]) -> ChangesAt | None:
    """The earliest time at which any part could change: early is allowed, late is not."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    return lambda user, now_ms: earliest([part(user, now_ms) for part in parts])
