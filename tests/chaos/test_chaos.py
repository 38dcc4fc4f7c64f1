"""The harness itself: every name that it patches exists, and its verifier is not blind."""

from __future__ import annotations

import inspect
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.plan import full, names_of, quick, sessions
from tests.chaos.planted import BUGS
from tests.chaos.points import find, points_of
from tests.chaos.soak import MIB, Sample, judge
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
    assert all(set(bug.points) <= set(names_of(bug.transport)) for bug in BUGS.values())
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


def test_a_whole_run_hits_every_crash_point_twenty_times_and_those_of_kafka_three_times_there() -> None:
    """What one transport alone has is hit there as often as both would have hit it."""
    wanted = full(17, 3)

    points = {name for transport in ("embedded", "kafka") for name in points_of(transport)}
    assert all(wanted["embedded", name] + wanted["kafka", name] >= 20 for name in points)
    assert all(wanted["kafka", name] >= 3 for name in points_of("kafka"))


def test_a_short_run_has_all_of_the_embedded_log_and_all_that_kafka_has_alone() -> None:
    """Seeds choose the rest, so that CI comes round to every point on Kafka."""
    chosen = [quick(seed) for seed in range(100)]

    assert all(each["embedded", name] == 1 for each in chosen for name in names_of("embedded"))
    assert all(each["kafka", name] for each in chosen for name in points_of("kafka").keys() - points_of("embedded"))
    assert {name for each in chosen for transport, name in each if transport == "kafka"} == set(names_of("kafka"))


def test_the_sessions_of_a_plan_are_the_plan() -> None:
    """No hit is left out or made twice, and none goes to the other transport."""
    wanted = full(5, 2)

    assert Counter((transport, name) for transport, names in sessions(wanted, 3) for name in names) == wanted


@pytest.mark.parametrize(("rise", "is_flat"), [(0.0, True), (1.0, True), (30.0, False)])
def test_memory_that_rises_is_told_from_memory_that_jumps(rise: float, is_flat: bool) -> None:
    """A slope in MiB a minute counts; one jump of a full buffer, and noise, do not."""
    dice = random.Random(1)
    samples = [
        Sample(second, round((90 + rise * second / 60 + (4 if second > 80 else 0) + dice.random()) * MIB), 40)
        for second in range(120)
    ]

    assert (judge(samples) == []) is is_flat


def test_open_files_that_rise_are_seen() -> None:
    """A descriptor that leaks at every life of a connection is a fault."""
    assert judge([Sample(second, MIB, 40 + second // 2) for second in range(120)]) != []


def test_the_verifier_sees_a_change_told_twice_in_the_output_topics() -> None:
    """Another client's view counts too: a user enters once, and each export record is there once."""
    work = Workload(7)
    enter = {"segment": "active", "external_id": "u1", "change": "enter"}
    found = Found([], [], Path("none"), totals={"dead_letters": 0})
    found.topics = {"currents": [{"id": "a"}, {"id": "a"}], "segment-changes": [enter, enter]}

    faults = verify(work, found).faults

    assert any(fault.startswith("currents topic: 2 too many") for fault in faults)
    assert any(fault.startswith("segment-changes: u1 active") for fault in faults)


def test_what_a_power_loss_took_is_offered_again() -> None:
    """An event that was acknowledged behind the last sync is wanted no more, until it is acknowledged again."""
    work = Workload(7)
    events = [event for event in work.part(30) if event["type"] == "event"]
    work.told(events, acknowledged=True)
    work.told(events[10:], acknowledged=False)

    assert len(work.taken) == 10
    assert len(work.unknown) == len(events) - 10
