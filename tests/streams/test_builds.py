"""What a change of definitions makes of the users who exist: what it can know of the past, and what it starts."""

from typing import Any

import pytest

from streams.definitions import read_definitions
from streams.mailbox import Step as ScanStep
from tests.driver import Driver
from tests.streams.segments.test_membership_property import Tree
from tests.streams.test_scans import Run, files_of, plain_files, unsure

DAY_MS = 86_400_000


def scanned(history: list[tuple[int, dict[str, Any]]], old: Tree, new: Tree) -> Driver:
    """Ann's history under the segment `old`, each entry so many days after the last, then `s` becomes `new`."""
    driver = Driver(plain_files({"old": old}))
    for days, value in history:
        driver.now_ms += days * DAY_MS
        driver.send({"external_id": "ann", **value})
    driver.switch(read_definitions(plain_files({"s": new})))
    Run(driver).scan(None)
    return driver


LIKE = {"type": "event", "name": "like", "properties": {"k": 1}}
BUY = {"type": "purchase", "product_id": "cds", "currency": "USD", "price": 5}
ATTRIBUTE = {"attribute": {"path": "x", "is": 1}}
CASES: dict[str, tuple[list[tuple[int, dict[str, Any]]], Tree, Tree, bool, int | None]] = {
    # history, old segment, new segment, member at the switch, days after which it is exact (0: at once; None: never)
    "the last one": ([(0, LIKE), (9, LIKE)], ATTRIBUTE, {"event": {"name": "like", "within": "5d"}}, True, 0),
    "two": ([(0, LIKE), (3, LIKE)], ATTRIBUTE, {"event": {"name": "like", "at_least": 2, "within": "5d"}}, True, 0),
    "by the day": (
        [(0, LIKE), (1, LIKE), (1, LIKE), (1, LIKE)],
        ATTRIBUTE,
        {"event": {"name": "like", "at_least": 3, "within": "5d"}},
        True,
        5,
    ),
    "with properties": (
        [(0, LIKE), (1, LIKE)],
        ATTRIBUTE,
        {"event": {"name": "like", "where": {"k": 1}, "within": "5d"}},
        False,
        5,
    ),
    "ever, with properties": ([(0, LIKE)], ATTRIBUTE, {"event": {"name": "like", "where": {"k": 1}}}, False, None),
    "never did": ([(0, BUY)], ATTRIBUTE, {"event": {"name": "like", "where": {"k": 1}}}, False, 0),
    "ever": ([(0, LIKE), (1, LIKE)], ATTRIBUTE, {"event": {"name": "like", "exactly": 2}}, True, 0),
    "money at once": ([(0, BUY)], ATTRIBUTE, {"money_spent": {"over": 4, "within": "5d"}}, True, 0),
    "money": ([(0, BUY), (1, BUY)], ATTRIBUTE, {"money_spent": {"over": 4, "within": "5d"}}, False, 5),
    "a longer window of money": (
        [(0, BUY), (3, BUY)],
        {"money_spent": {"over": 1, "within": "1d"}},
        {"money_spent": {"over": 8, "within": "5d"}},
        False,
        5,
    ),
    "a longer window of counts": (
        [(0, BUY), (1, BUY), (1, BUY), (1, BUY)],
        {"purchases": {"at_least": 2, "within": "2d"}},
        {"purchases": {"at_least": 4, "within": "5d"}},
        True,
        4,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_kept_counters_can_say(case: str) -> None:
    """What the row can know of the past decides; what it cannot, `explain` admits, and says until when."""
    history, old, new, member, days = CASES[case]
    driver = scanned(history, old, new)
    user, predicate = driver.user("ann"), driver.folds[0].workspace.segments[0].predicate
    exact_after = [after for after in range(9) if not unsure(predicate.explain(user, driver.now_ms + after * DAY_MS))]

    assert ("s" in user.memberships) == member
    assert exact_after == ([] if days is None else list(range(days, 9)))
    assert [(one.built, one.entered) for one in driver.changes if one.segment == "s"] == [(True, True)] * member


def test_a_build_starts_no_campaign_and_what_time_does_later_does() -> None:
    """Entering by a build sends nothing; leaving when the window ends, even before the scan came, sends."""
    segment = {"event": {"name": "like", "within": "10s"}}
    driver = Driver(plain_files({"old": ATTRIBUTE}))
    driver.send({"external_id": "ann", **LIKE})
    switched_ms = driver.now_ms
    driver.switch(read_definitions(files_of({"s": segment})))
    driver.advance(60_000)
    assert driver.changes == []
    Run(driver).scan(None)
    driver.advance(60_000)

    entered, left = driver.changes
    assert (entered.entered, entered.built, entered.time_ms) == (True, True, switched_ms)
    assert (left.entered, left.built, left.time_ms) == (False, False, switched_ms + 10_000)
    assert [one.campaign for one in driver.sends] == ["left_s"]


def test_removed_and_changed_segments_leave_and_others_are_not_touched() -> None:
    """A segment that is gone is left by a build, a changed one is decided anew, an unchanged one keeps its entry."""
    files: dict[str, Tree] = {
        "gone": {"event": {"name": "like"}},
        "kept": {"event": {"name": "like"}},
        "other": ATTRIBUTE,
    }
    driver = Driver(plain_files(files))
    driver.send({"external_id": "ann", **LIKE})
    entered_ms, before = driver.now_ms, len(driver.changes)
    driver.now_ms += 5_000
    driver.switch(read_definitions(plain_files({"kept": files["kept"], "other": {"not": ATTRIBUTE}})))
    Run(driver).scan(None)

    assert driver.user("ann").memberships == {"kept": entered_ms, "other": driver.now_ms}
    assert [(one.segment, one.entered, one.built) for one in driver.changes[before:]] == [
        ("gone", False, True),
        ("other", True, True),
    ]


def test_what_changes_nothing_for_rows_scans_nothing() -> None:
    """A pause, a description or another message is in force at once, and a scan that is open goes on."""
    driver = Driver(files_of({"s": ATTRIBUTE}))
    driver.send({"external_id": "ann", **LIKE})
    driver.pause("*")
    assert driver.folds[0].position.scan is None
    driver.switch(read_definitions(plain_files({"s": {"event": {"name": "like"}}})))
    first = driver.folds[0].position.open_scan
    driver.pause("*")
    assert driver.folds[0].position.open_scan is first
    assert first is not None
    assert [turn.builds for turn in first.turns] == [True, False]


def test_steps_out_of_place_change_nothing() -> None:
    """A step of another version, one that leaves a gap, and one that was done decide no row."""
    driver = Driver(plain_files({"s": ATTRIBUTE}))
    for name in ("a", "b", "c"):
        driver.send({**LIKE, "external_id": name})
    driver.switch(read_definitions(plain_files({"s": {"event": {"name": "like"}}})))
    for step in (ScanStep(0, "", None), ScanStep(1, "b", None)):
        driver.deliver(0, None, step)
    assert driver.changes == []
    for step in (ScanStep(1, "", "a"), ScanStep(1, "", "a"), ScanStep(1, "a", None), ScanStep(1, "a", None)):
        driver.deliver(0, None, step)
    assert [one.user for one in driver.changes] == ["a", "b", "c"]
    scan = driver.folds[0].position.scan
    assert scan is not None
    assert (scan.start_offset, scan.rows) == (4, 3)


def test_what_time_did_between_two_switches_is_decided_by_the_first() -> None:
    """A window that ended before a pause still sends, though the scan comes to the row only after it."""
    driver = Driver(plain_files({"old": ATTRIBUTE}))
    driver.send({"external_id": "ann", **LIKE})
    driver.switch(read_definitions(files_of({"s": {"event": {"name": "like", "within": "10s"}}})))
    paused_ms = driver.now_ms + 20_000
    driver.advance(20_000)
    driver.pause("*")
    Run(driver).scan(None)

    assert [(one.campaign, one.decided_ms < paused_ms) for one in driver.sends] == [("left_s", True)]
