"""The words of the first screen: each trouble is named, and all is well only when nothing is wrong."""

import pytest

from streams.health import Channel, Facts, Reader, Worker, findings, headline

WELL = Facts(
    at_ms=1_000,
    workers=[Worker("0", "up", 0)],
    readers=[Reader("users", "mailbox", 0, "OK", 0, "everything is processed", 0, 0.0)],
    channels=[Channel("webhook", sent=9)],
    assigned=1,
    opened=1,
)
TROUBLES: dict[str, tuple[dict[str, object], str, str]] = {
    "Worker 1": ({"workers": [Worker("1", "ended", 7, "ended by signal 9")]}, "STOP", "dead; ended by signal 9"),
    "Worker 2": ({"workers": [Worker("2", "silent", 7)]}, "STALL", "does not answer"),
    "Provider of a": (
        {"channels": [Channel("a", 8, oldest_attempt_s=6.0, retry=2)]},
        "STALL",
        "for 6 s to 8",
    ),
    "Provider of b": ({"channels": [Channel("b", silent_hosts=1, sent=3)]}, "WARN", "others go on"),
    "Provider of c": ({"channels": [Channel("c", sent=8, failed=2)]}, "WARN", "20% of attempts failed"),
    "Provider of e": (
        {"channels": [Channel("e", waiting={"transactional": 1}, waiting_s={"transactional": 6.0, "bulk": 900.0})]},
        "WARN",
        "1 transactional send wait",
    ),
    "Provider of d": ({"channels": [Channel("d", held=2)]}, "WARN", "2 sends uncertain"),
    "Segments and campaigns": (
        {"readers": [Reader("users", "mailbox", 3, "STALL", 5, "9 records wait and none is processed", 9, 40.0)]},
        *("STALL", "mailbox partition 3: 9 records wait"),
    ),
    "Partitions": ({"restoring": {"3": 500}}, "WARN", "restoring 3: 500 changelog records left"),
    "Timers": ({"overdue_s": 6.0}, "WARN", "6 s late"),
    "Dead letters": ({"dead_letters": {"bad_json": 5.0}, "records": 100.0}, "WARN", "5.0% of records"),
    "Event loop": ({"blocked_s": 3.0}, "STALL", "not turned for 3 s"),
}


def test_all_is_well() -> None:
    """Nothing is wrong where nothing is, and the headline says so in one sentence."""
    found = findings(WELL)
    assert {each.state for each in found} == {"OK"}
    assert headline(found) == f"Healthy: all {len(found)} components are OK"


@pytest.mark.parametrize("component", TROUBLES)
def test_each_trouble_is_named(component: str) -> None:
    """One thing goes wrong: its component stands first, with its state and the reason, and the headline names it."""
    change, state, words = TROUBLES[component]
    facts = Facts(**{**{name: getattr(WELL, name) for name in WELL.__struct_fields__}, **change})
    found = findings(facts)
    assert (found[0].component, found[0].state) == (component, state)
    assert words in found[0].why
    assert headline(found).endswith(f"need attention: {component}")
