"""The keys under which rows keep what windows count: one for each thing that is counted, and those of old rows."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.definitions import read_definitions
from streams.segments.predicate import compile_tree
from streams.segments.series import Series
from tests.driver import Driver
from tests.streams.segments.test_membership_property import Tree
from tests.streams.test_scans import Run, plain_files

LOOKALIKE = 'a?{"x":1}'
COUNTED: Tree = {"event": {"name": "a", "where": {"x": 1}, "within": "1d"}}
NAMED_ALIKE: Tree = {"event": {"name": LOOKALIKE, "within": "1d"}}

parts = st.sampled_from(["a", "?", "{", "}", '"x":1', '{"x":1}', '?{"x":1}', ":", "event:", "purchases", "money:USD"])
names = st.lists(parts, min_size=1, max_size=5).map("".join)
wheres = st.none() | st.dictionaries(names, st.integers(0, 1) | names, min_size=1, max_size=2)


@st.composite
def counting(draw: st.DrawFn) -> Tree:
    """A filter that keeps a series, with names and properties that look like parts of a key."""
    kind = draw(st.sampled_from(["event", "event", "purchases", "product", "money_spent"]))
    if kind == "event":
        where = draw(wheres)
        return {"event": {"name": draw(names), "within": "1d", **({} if where is None else {"where": where})}}
    if kind == "money_spent":
        return {"money_spent": {"over": 1, "within": "1d", "currency": draw(st.sampled_from(["USD", "EUR"]))}}
    return {"purchases": {"within": "1d", **({"product": draw(names)} if kind == "product" else {})}}


def _series(tree: Tree) -> Series:
    (series,) = compile_tree(tree).series
    return series


def _event(name: str, **properties: int) -> dict[str, object]:
    return {"type": "event", "external_id": "u", "name": name, "properties": properties}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """Two filters, the second often of an event whose name is all that stands in the first one's key."""
    one = draw(counting())
    name = _series(one).key.partition(":")[2] or "a"
    return one, draw(counting() | st.just({"event": {"name": name, "within": "1d"}}))


@example((COUNTED, NAMED_ALIKE))
@given(pairs())
def test_one_key_for_what_is_one_thing(pair: tuple[Tree, Tree]) -> None:
    """Two filters share a key exactly when they count the same occurrences."""
    one, other = pair
    assert (_series(one).key == _series(other).key) == (one == other)


def test_both_are_counted_in_one_workspace() -> None:
    """Each of two segments that look alike is entered by its own event, and by that alone."""
    files = plain_files({"s": COUNTED, "t": NAMED_ALIKE})
    by_property, by_name = Driver(files), Driver(files)
    by_property.send(_event("a", x=1))
    by_name.send(_event(LOOKALIKE))
    assert [each.segment for each in by_property.changes] == ["s"]
    assert [each.segment for each in by_name.changes] == ["t"]


def test_one_does_not_inherit_the_others_counts() -> None:
    """A segment that takes the place of one that looks alike does not count what that one did."""
    driver = Driver(plain_files({"t": NAMED_ALIKE}))
    driver.send(_event(LOOKALIKE))
    driver.switch(read_definitions(plain_files({"s": COUNTED})))
    Run(driver).scan(None)
    assert [(each.segment, each.entered) for each in driver.changes] == [("t", True), ("t", False)]


@pytest.mark.parametrize(
    "name", ["like", "like it?", "a?b", "GET /x?{id}", "a?{}", 'a?{"x"}', '?{"x":1', "a{}", "ä?[1]"]
)
def test_the_keys_of_old_rows_stay(name: str) -> None:
    """A name that cannot be taken for an event with properties has the key that it always had."""
    assert _series({"event": {"name": name, "within": "1d"}}).key == f"event:{name}"
    where = {"event": {"name": name, "where": {"y": 2, "x": 1}, "within": "1d"}}
    assert _series(where).key == f'event:{name}?{{"x":1,"y":2}}'
