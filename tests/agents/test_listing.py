"""Answers as people read them: aligned, whole, and never able to steer a terminal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.web import listing
from streams.events import JSONValue

WILD = st.text(alphabet='a\x1b[31m\n\r\t\x00\u202eé"', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WILD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WILD, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, st.lists(st.fixed_dictionaries({"one": VALUES, "two": VALUES}), min_size=1, max_size=4))
def test_nothing_that_came_from_outside_steers_a_terminal(value: JSONValue, rows: list[dict[str, Any]]) -> None:
    """Whatever users and producers wrote, tables and trees hold printable characters and our own line ends."""
    for text in (listing.tree({"value": value}), listing.table(rows)):
        assert all(line.isprintable() for line in text.split("\n")), text
    assert listing.table(rows).count("\n") == len(rows)


def test_a_table_is_aligned_and_cut_to_the_terminal() -> None:
    """Words stand to the left, numbers to the right, a missing value is a dash, and no line is wider than told."""
    rows = [{"name": "vip", "now": 12_000, "why": None}, {"name": "lapsed", "now": 3, "why": "x" * 50}]

    assert listing.table(rows, width=24).split("\n") == [
        "NAME      NOW  WHY",
        "vip     12000  -",
        "lapsed      3  xxxxxxxx…",
    ]
    assert listing.table([], nothing="none") == "none"
    assert listing.table(rows, ["now"]).split("\n") == ["  NOW", "12000", "    3"]


def test_lag_names_the_partition_that_is_furthest_behind() -> None:
    """Per agent and topic the lags are added, and the worst partition is named where there is any lag."""
    rows = [{"agent": "users", "topic": "mailbox", "partition": at, "lag": lag} for at, lag in enumerate((0, 7, 2))]
    rows += [{"agent": "intake", "topic": "events", "partition": 0, "lag": 0}]

    assert listing.lag(rows) == [
        {"agent": "users", "topic": "mailbox", "partitions": 3, "lag": 9, "worst": "partition 1: 7"},
        {"agent": "intake", "topic": "events", "partitions": 1, "lag": 0, "worst": None},
    ]


@pytest.mark.parametrize("member", [True, False])
def test_why_shows_each_verdict_with_its_facts(member: bool) -> None:
    """An explanation opens with the answer, and each node of the tree stands under its own verdict."""
    leaf = {"filter": "purchases", "params": {"at_least": 1}, "holds": not member, "count": 2}
    why = {"all": [{"not": leaf, "holds": member}], "holds": member}
    lines = listing.why({"external_id": "ann", "segment": "s", "member": member, "at": "now", "why": why}).split("\n")

    yes, no = ("yes", "no") if member else ("no", "yes")
    assert lines[0] == f"ann {'is in' if member else 'is not in'} s, at now"
    assert [line.split()[0] for line in lines[1:]] == [yes, yes, no]
    assert lines[3].endswith("purchases (at_least=1): count=2")
