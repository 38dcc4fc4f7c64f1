"""The fleet's harness itself: every name that it patches exists, its plan is whole, and its verifier is not blind."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable

import pytest

from tests.chaos.fleet.faults import FAULTS
from tests.chaos.fleet.planted import BUGS
from tests.chaos.fleet.run import BROKERS, FLEET, HITS, QUICK, names_of, parts_of, wanted_of
from tests.chaos.fleet.steps import FREEZES, steps
from tests.chaos.fleet.topics import Topics, hold_topics
from tests.chaos.points import find
from tests.chaos.verifier import Verdict
from tests.chaos.workload import ACTIVE_AT, Workload

TARGETS = {*(step.target for step in steps().values()), *(bug.target for bug in BUGS.values())}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_patched_name_is_a_function_of_the_product(target: str) -> None:
    """A function that is renamed or moved turns this red, before a step silently stops to exist."""
    owner, name = find(target)

    assert inspect.isfunction(getattr(owner, name))


def test_every_bug_is_hunted_at_steps_that_exist() -> None:
    """A bug names the steps at which a worker is frozen to bring it to light, and the short run real faults."""
    assert {step for bug in BUGS.values() for step in bug.points} <= FREEZES.keys()
    assert len(BUGS) >= 2
    assert set(QUICK) <= FAULTS.keys()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_plan_holds_every_fault_as_often_as_asked(seed: int) -> None:
    """Cut into sessions, nothing is dropped and nothing added; a name's part, and one kind alone, can be had."""
    wanted = wanted_of("")
    for kind in (FLEET, BROKERS):
        cut = Counter(name for part in parts_of(wanted, kind, seed) for name in part)
        assert cut == Counter(dict.fromkeys(names_of(kind), HITS[kind]))
    assert {kind for kind, _ in wanted_of("brokers")} == {BROKERS}
    assert {name for _, name in wanted_of("fleet: frozen")} == {name for name in FAULTS if "frozen" in name}
    assert not wanted_of("mail")


def topics_of(work: Workload) -> Topics:
    """What a sound fleet has written of a workload."""
    sends = {
        channel: [
            {"dispatch_id": f"{user}{name}{n}", "user": user, "campaign": name, "event_properties": {"n": n}}
            for name in names
            for user, _, n in sorted(work.wanted(name))
        ]
        for channel, names in (("webhook", ("go", "later")), ("email", ("mail",)))
    }
    bumps = Counter(user for user, _, _ in work.wanted("bump"))
    active = [user for user in sorted(bumps) if bumps[user] >= ACTIVE_AT]
    changes = [{"external_id": user, "segment": "active", "change": "enter"} for user in active]
    return Topics(sends, [{"id": str(at)} for at in range(9)], changes)


def test_the_verifier_sees_what_topics_lack_or_have_twice() -> None:
    """Sound topics pass; a send, a currents record or a change too few or too many does not."""
    work, ids = Workload(7), Counter(map(str, range(9)))
    work.told(work.part(300), acknowledged=True)
    sound, verdict = topics_of(work), Verdict()
    hold_topics(work, sound, ids, verdict)
    assert not verdict.faults

    breaks: list[Callable[[Topics], object]] = [
        lambda topics: topics.sends["webhook"].pop(),
        lambda topics: topics.sends["email"].append(topics.sends["email"][0]),
        lambda topics: topics.currents.pop(),
        lambda topics: topics.currents.append(topics.currents[0]),
        lambda topics: topics.changes.pop(),
        lambda topics: topics.changes.append(topics.changes[0]),
    ]
    for break_it in breaks:
        broken, verdict = topics_of(work), Verdict()
        break_it(broken)
        hold_topics(work, broken, ids, verdict)
        assert verdict.faults
        assert verdict.lost + verdict.doubled
