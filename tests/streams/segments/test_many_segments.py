"""Among many segments a decision asks only those that it can change: the answers are those of asking all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from hypothesis import example, given
from hypothesis import strategies as st

from streams.profiles.row import new_user
from streams.segments import membership
from streams.segments.predicate import FILTERS, compile_tree
from tests.streams.segments.test_membership_property import Step, Tree, all_steps, run, workspaces


@contextmanager
def sorted_out() -> Iterator[None]:
    """Sort segments out however few they are."""
    few, membership.FEW_SEGMENTS = membership.FEW_SEGMENTS, 0  # type: ignore[misc]
    try:
        yield
    finally:
        membership.FEW_SEGMENTS = few  # type: ignore[misc]


REFERRING: dict[str, Tree] = {
    "new": {"event": {"name": "look", "exactly": 0}},
    "old": {"not": {"segment": "new"}},
    "older": {"segment": "old"},
}

AGEING: dict[str, Tree] = {
    "look": {"event": {"name": "look", "within": "1s"}},
    "many": {"purchases": {"at_least": 1, "within": "2s"}},
    "cds": {"purchases": {"at_least": 1, "within": "1s", "product": "cds"}},
    "rich": {"money_spent": {"over": "1", "within": "2s"}},
}
BOUGHT: list[Step] = [
    Step(None, 0, "ann", "event", 0, {"name": "look"}),
    Step(None, 0, "ann", "purchase", 0, {"product_id": "cds", "currency": "USD", "price": "4"}),
    Step(None, 5_000, "ann", "tick", 0, {}),
]


@example(AGEING, BOUGHT, "wall")
@example(REFERRING, [Step(None, 0, "ann", "event", 0, {"name": "look"})], "wall")
@given(workspaces(), all_steps, st.sampled_from(["wall", "stream"]))
def test_segments_that_are_left_out_would_not_have_changed(
    segments: dict[str, Tree], steps: list[Step], clock: Literal["wall", "stream"]
) -> None:
    """With segments sorted out by what a user did, memberships and their times are those of the model."""
    with sorted_out():
        run(segments, steps, clock)


def test_what_never_happened_does_not_age() -> None:
    """No filter's answer for a user of whom nothing is known changes with time: none need be asked again."""
    nobody = new_user(0)
    for name, spec in FILTERS.items():
        for params, *_ in spec.examples:
            compiled = compile_tree({name: params})
            assert compiled.changes_at is None or compiled.changes_at(nobody, 0) is None
            assert compiled.test(nobody, 0) == compiled.test(nobody, 10**15)
