"""A user's first event: the audience of what it starts is asked of a user of whom nothing is known."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.driver import Driver

SEGMENTS: dict[str, Any] = {
    "no_buyer": {"purchases": {"at_most": 0}},
    "buyer": {"purchases": {"at_least": 1}},
    "silent": {"event": {"name": "signup", "at_most": 0}},
    "nameless": {"not": {"attribute": {"path": "first_name", "exists": True}}},
    "fresh": {"all": [{"segment": "no_buyer"}, {"segment": "silent"}]},
}
FILES = {f"segments/{name}.yaml": {"name": name, "filter": tree} for name, tree in SEGMENTS.items()}
AUDIENCES = st.recursive(
    st.sampled_from([{"segment": name} for name in SEGMENTS]),
    lambda inner: (
        st.builds(lambda one: {"not": one}, inner)
        | st.builds(
            lambda kind, some: {kind: some}, st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
        )
    ),
    max_leaves=5,
)


def _written_out(tree: dict[str, Any]) -> dict[str, Any]:
    """The same audience without a segment in it."""
    ((kind, inner),) = tree.items()
    if kind == "segment":
        return _written_out(SEGMENTS[inner])
    if kind == "not":
        return {"not": _written_out(inner)}
    return {kind: [_written_out(each) for each in inner]} if kind in ("all", "any") else tree


def _sends(audience: dict[str, Any], event: dict[str, Any]) -> int:
    campaign = {"name": "c", "channel": "log", "audience": audience, "message": {"text": "x"}}
    trigger = {"purchase": {}} if event["type"] == "purchase" else {"event": {"name": "signup"}}
    driver = Driver({**FILES, "campaigns/c.yaml": {**campaign, "trigger": trigger}})
    driver.send(event)
    return len(driver.sends)


SIGNUP = {"type": "event", "external_id": "u", "name": "signup"}
BOUGHT = {"type": "purchase", "external_id": "u", "product_id": "p", "currency": "USD", "price": 1}


@given(AUDIENCES, st.sampled_from([SIGNUP, BOUGHT]))
def test_a_segment_in_an_audience_means_its_filter(audience: dict[str, Any], event: dict[str, Any]) -> None:
    """Of a user's first event, an audience of segments and the same written out decide alike."""
    assert _sends(audience, event) == _sends(_written_out(audience), event)


@pytest.mark.parametrize(("segment", "sends"), [("no_buyer", 1), ("buyer", 0), ("fresh", 1)])
def test_who_is_welcomed(segment: str, sends: int) -> None:
    """Whoever has bought nothing is welcomed at the first event, and enters its segments by it all the same."""
    assert _sends({"segment": segment}, SIGNUP) == sends
    driver = Driver(FILES)
    driver.send(SIGNUP)
    assert {(each.segment, each.entered) for each in driver.changes} == {("no_buyer", True), ("nameless", True)}
