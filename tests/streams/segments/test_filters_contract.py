"""The contract that every filter keeps, run over the registry: a new filter inherits it and touches nothing here."""

from collections.abc import Iterator

import pytest

from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.profiles.row import User, decode_row, encode_row
from streams.segments.filter import Compiled
from streams.segments.predicate import FILTERS, TREE_DEPTH_MAX, TREE_NODES_MAX, compile_tree

HORIZON_MS = 200_000


class Example:
    """One example of one filter, compiled as a whole tree."""

    def __init__(self, name: str, at: int) -> None:
        self.name = name
        self.params, self.user, self.now_ms, self.expected = FILTERS[name].examples[at]
        self.tree: JSONValue = {name: self.params}
        self.compiled: Compiled = compile_tree(self.tree)


PLACES = [(name, at) for name in FILTERS for at in range(len(FILTERS[name].examples))]
every_example = pytest.mark.parametrize(("name", "at"), PLACES, ids=str)
every_filter = pytest.mark.parametrize("name", FILTERS)


def verdicts(node: JSONValue) -> Iterator[tuple[JSONValue, JSONValue]]:
    """Each node of an explanation with its own `holds`."""
    if isinstance(node, dict):
        if "holds" in node:
            yield node, node["holds"]
        for child in node.values():
            yield from verdicts(child)
    elif isinstance(node, list):
        for child in node:
            yield from verdicts(child)


@every_filter
def test_filters_are_known_by_their_name(name: str) -> None:
    """A filter stands in the registry under its own name, has a label, and shows both answers by example."""
    spec = FILTERS[name]

    assert spec.name == name
    assert spec.label
    assert {expected for _, _, _, expected in spec.examples} == {True, False}


@every_example
def test_examples_hold(name: str, at: int) -> None:
    """Every example gives the answer that it states, also on a row that has been stored and read back."""
    example = Example(name, at)
    stored = decode_row(encode_row(example.user))

    assert example.compiled.test(example.user, example.now_ms) is example.expected
    assert example.compiled.test(stored, example.now_ms) is example.expected


@every_example
def test_negation_flips(name: str, at: int) -> None:
    """`not` gives the opposite of every example, and twice the same again."""
    example = Example(name, at)

    for tree, expected in (
        ({"not": example.tree}, not example.expected),
        ({"not": {"not": example.tree}}, example.expected),
    ):
        assert compile_tree(tree).test(example.user, example.now_ms) is expected


@every_example
def test_trees_join_examples(name: str, at: int) -> None:
    """`all` and `any` over an example and its opposite are false and true, and alone they are the example."""
    example = Example(name, at)
    both = [example.tree, {"not": example.tree}]

    for tree, expected in (
        ({"all": both}, False),
        ({"any": both}, True),
        ({"all": [example.tree]}, example.expected),
        ({"any": [example.tree, example.tree]}, example.expected),
    ):
        assert compile_tree(tree).test(example.user, example.now_ms) is expected


@every_example
def test_explain_says_what_test_says(name: str, at: int) -> None:
    """At any time `holds` in an explanation equals the test, at the top and at every node inside a tree."""
    example = Example(name, at)
    tree = compile_tree({"all": [{"not": {"any": [example.tree]}}, example.tree]})

    for now_ms in (example.now_ms, example.now_ms + 1, example.now_ms + HORIZON_MS):
        holds = example.compiled.test(example.user, now_ms)
        leaf = example.compiled.explain(example.user, now_ms)
        whole = tree.explain(example.user, now_ms)
        assert leaf["holds"] is holds
        assert (leaf["filter"], leaf["params"]) == (name, example.params)
        assert whole["holds"] is tree.test(example.user, now_ms)
        assert [said for _, said in verdicts(whole)] == [whole["holds"], not holds, holds, holds, holds]


@every_example
def test_asking_changes_nothing(name: str, at: int) -> None:
    """Neither test, changes_at nor explain writes into the row."""
    example = Example(name, at)
    before = encode_row(example.user)

    example.compiled.test(example.user, example.now_ms)
    example.compiled.explain(example.user, example.now_ms)
    if example.compiled.changes_at is not None:
        example.compiled.changes_at(example.user, example.now_ms)

    assert encode_row(example.user) == before


def first_flip(compiled: Compiled, user: User, from_ms: int, until_ms: int) -> int | None:
    """The first millisecond after `from_ms` whose answer differs, asking at every one of them."""
    holds = compiled.test(user, from_ms)
    return next((now_ms for now_ms in range(from_ms + 1, until_ms) if compiled.test(user, now_ms) is not holds), None)


@every_example
@pytest.mark.parametrize("negated", [False, True], ids=["plain", "not"])
def test_changes_at_is_never_late(name: str, at: int, negated: bool) -> None:
    """Asked at every millisecond, the answer is constant from now until `changes_at`, again and again."""
    example = Example(name, at)
    compiled = compile_tree({"not": example.tree}) if negated else example.compiled
    now_ms = 0
    until_ms = example.now_ms + HORIZON_MS
    while now_ms < until_ms:
        change_ms = None if compiled.changes_at is None else compiled.changes_at(example.user, now_ms)
        assert change_ms is None or change_ms > now_ms
        end_ms = until_ms if change_ms is None else min(change_ms, until_ms)
        assert first_flip(compiled, example.user, now_ms, end_ms) is None
        now_ms = end_ms


def test_some_example_changes_by_time() -> None:
    """The suite does see time change an answer, so that the law about `changes_at` is not vacuous."""
    flips = [
        (name, at)
        for name, at in PLACES
        for example in [Example(name, at)]
        if first_flip(example.compiled, example.user, 0, HORIZON_MS) is not None
    ]

    assert {name for name, _ in flips} == {"event", "purchases", "money_spent"}


@every_example
def test_unknown_parameters_are_refused(name: str, at: int) -> None:
    """A parameter that the filter does not know is refused, naming the place within the tree."""
    params = FILTERS[name].examples[at][0]
    wrong = {**params, "at_leest": 1} if isinstance(params, dict) else {"name": params, "at_leest": 1}

    with pytest.raises(BadDefinition, match=rf"^audience\.all\[1\]\.not\.{name}: ") as caught:
        compile_tree({"all": [{name: params}, {"not": {name: wrong}}]}, "audience")
    if isinstance(params, dict):
        assert "at_leest" in str(caught.value)


@every_filter
@pytest.mark.parametrize("params", [None, 7, [], [{}], True, {"within": "soon"}])
def test_wrong_parameters_are_refused(name: str, params: JSONValue) -> None:
    """Parameters of the wrong kind are refused with the filter's place, never with another error."""
    with pytest.raises(BadDefinition, match=rf"^filter\.{name}: "):
        compile_tree({name: params})


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        ({"purchases": {"within": "0s"}}, "filter.purchases: within: 0s"),
        ({"purchases": {"within": "731d"}}, "filter.purchases: within: 731d"),
        ({"purchases": {"at_least": 1, "at_most": 2}}, "filter.purchases: give one of"),
        ({"purchases": {"at_least": -1}}, "filter.purchases: "),
        ({"event": {"name": "a", "where": {"b": {"over": 1, "under": 2}}}}, "filter.event: where b: "),
        ({"event": {"name": ""}}, "filter.event: "),
        ({"money_spent": {}}, "filter.money_spent: give exactly one"),
        ({"money_spent": {"over": 1, "currency": "usd"}}, "filter.money_spent: "),
        ({"money_spent": {"over": "NaN"}}, "filter.money_spent: "),
        ({"attribute": {"path": "a"}}, "filter.attribute: give exactly one"),
        ({"attribute": {"path": "a", "is": 1, "is_not": 1}}, "filter.attribute: give exactly one"),
        ({"attribute": {"path": "a", "before": "soon"}}, "filter.attribute: "),
        ({"all": []}, "filter.all: "),
        ({"any": {}}, "filter.any: "),
        ({"not": []}, "filter.not: "),
        ({}, "filter: "),
        ({"segment": "a", "event": {"name": "a"}}, "filter: "),
        ({"none_of": []}, "filter.none_of: 'none_of' is no filter"),
        ({"all": [{"any": [{"nope": 1}]}]}, "filter.all[0].any[0].nope: "),
    ],
)
def test_faults_name_their_place(tree: JSONValue, fault: str) -> None:
    """Each faulty tree is refused with the place of the fault at the start of the message."""
    with pytest.raises(BadDefinition) as caught:
        compile_tree(tree)
    assert str(caught.value).startswith(fault)


def test_trees_are_bounded() -> None:
    """A tree of the greatest depth and size compiles, one more level or node is refused."""
    leaf: JSONValue = {"segment": "a"}
    deep = leaf
    for _ in range(TREE_DEPTH_MAX - 1):
        deep = {"not": deep}
    compile_tree(deep)
    compile_tree({"any": [leaf] * (TREE_NODES_MAX - 1)})

    for tree in ({"not": deep}, {"any": [leaf] * TREE_NODES_MAX}):
        with pytest.raises(BadDefinition, match="split it"):
            compile_tree(tree)
