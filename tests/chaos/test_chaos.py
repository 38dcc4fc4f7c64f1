"""The harness itself: every name that it patches exists, and its verifier is not blind."""

from __future__ import annotations

import inspect
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.planted import BUGS
from tests.chaos.points import find, points_of
from tests.chaos.verifier import Found, Verdict, verify
from tests.chaos.workload import Workload

TARGETS = sorted({point.target for each in ("embedded", "kafka") for point in points_of(each).values()})


@pytest.mark.parametrize("target", sorted({*TARGETS, *(bug.target for bug in BUGS.values())}))
def test_every_patched_name_is_a_function_of_the_product(target: str) -> None:
    """A function that is renamed or moved turns this red, before a crash point silently stops to exist."""
    owner, name = find(target)

    assert inspect.isfunction(getattr(owner, name))


def test_the_points_of_every_planted_bug_exist() -> None:
    """A bug is hunted at points that there are."""
    assert {name for bug in BUGS.values() for name in bug.points} <= points_of("embedded").keys()
    assert len(BUGS) >= 12


def test_the_verifier_sees_what_is_missing_and_what_is_doubled() -> None:
    """Each item missing from a multiset counts as lost, each one too many as doubled."""
    verdict = Verdict()

    verdict.compare("things", Counter("aab"), Counter("abc"))

    assert (verdict.lost, verdict.doubled, len(verdict.faults)) == (1, 1, 2)


def test_the_verifier_sees_a_product_that_did_nothing(tmp_path: Path) -> None:
    """A workload of which nothing came out is lost as a whole: calls, mails, exports and rows."""
    work = Workload(7)
    work.told(work.part(50), acknowledged=True)

    verdict = verify(work, Found([], [], tmp_path, totals={"dead_letters": 0}))

    assert verdict.lost >= len(work.taken)
    assert {fault.partition(":")[0] for fault in verdict.faults} >= {"webhooks", "mails", "exported events", "u1"}
