"""Whatever the network, the tabs and the visitor do, each thing counts once, for the right user, in order."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.codec import partition_of
from streams.sdk_batch import read_envelope, read_items
from tests.driver import Driver

SDK = Path(__file__).resolve().parents[2] / "sdk"
NODE = which("node")
PARTITIONS = 3

pytestmark = [pytest.mark.skipif(NODE is None, reason="no node here"), pytest.mark.timeout(240)]

FATES = st.sampled_from(["ok", "lost", "unheard", "twice", "late", "hangs", "sinks", "broken", "down", "busy"])
"""What becomes of a request: arrives and is answered · neither · arrives unanswered · and again later · only later,
unanswered · arrives, no end · neither, no end · arrives, 502 · does not, 503 · does not, 429."""

STEPS = st.one_of(
    st.just(["log"]),
    st.just(["log"]),
    st.just(["log", "at once"]),
    st.tuples(st.just("set"), st.integers(0, 99)),
    st.tuples(st.just("change"), st.sampled_from(["ann", "ben"])),
    st.just(["session"]),
    st.tuples(st.just("advance"), st.sampled_from([1, 11_000, 11_000, 20_000, 130_000, 1_200_000])),
    st.tuples(st.just("online"), st.booleans()),
    st.tuples(st.just("fates"), st.lists(FATES, min_size=1, max_size=6)),
    st.tuples(st.just("reload"), st.booleans()),
    st.just(["tab"]),
)


class Player:
    """A node that plays scripts, one after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [str(NODE), "test/play.mjs"], cwd=SDK, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def play(self, script: list[Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(script).encode() + b"\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    """One node for all scripts."""
    found = Player()
    yield found
    found.close()


def topic_of(played: dict[str, Any]) -> list[tuple[int, str, dict[str, Any]]]:
    """The events topic after the arrivals, each taken by the door: (time, key, value)."""
    found = []
    for arrival in played["arrivals"]:
        batch = read_items(read_envelope(arrival["body"].encode()), arrival["at"], PARTITIONS, frozenset())
        assert batch.faults == []
        found += [(arrival["at"], (out.key or b"").decode(), json.loads(out.value)) for out in batch.outputs]
    return found


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(STEPS, max_size=40))
def test_each_thing_counts_once_for_its_user_in_order(player: Player, script: list[Any]) -> None:
    """Through loss, silence, repetition, delay, reloads and tabs: nothing is lost, doubled, moved or out of order."""
    played = player.play(script)
    assert (played["left"], sum(played["dropped"].values())) == (0, 0)
    topic = topic_of(played)
    once = {(key, value["id"]): value for _, key, value in reversed(topic)}  # the first that arrived
    assert len({item for _, item in once}) == len(once), "an item under two users would not be recognised"
    events = [(key, value["name"]) for _, key, value in topic if value["type"] == "event"]
    meant = [(each["user"] or f"device:{played['device']}", each["name"]) for each in played["meant"]]
    for user in {user for user, _ in [*events, *meant]}:
        assert [name for who, name in dict.fromkeys(events) if who == user] == [n for who, n in meant if who == user]
    driver = Driver({}, partitions=PARTITIONS)
    for at_ms, key, value in topic:
        driver.now_ms = max(driver.now_ms, at_ms)
        driver.send(json.dumps(value).encode(), key.encode())
    counted = [each.fields["name"] for each in driver.currents if each.event_type == "users.behaviors.CustomEvent"]
    assert sorted(counted) == sorted(each["name"] for each in played["meant"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=6), fates=st.lists(FATES, max_size=6))
def test_the_last_value_that_was_set_is_the_one_that_holds(player: Player, values: list[int], fates: list[str]) -> None:
    """Setters that are repeated, delayed and sent again leave the user's attribute at the last of them."""
    script: list[Any] = [["change", "ann"], ["fates", fates]]
    for number in values:
        script += [["set", number], ["advance", 11_000]]
    played = player.play(script)
    driver = Driver({}, partitions=PARTITIONS)
    for at_ms, key, value in topic_of(played):
        driver.now_ms = max(driver.now_ms, at_ms)
        driver.send(json.dumps(value).encode(), key.encode())
    assert driver.rows[partition_of(b"ann", PARTITIONS)].get("ann") is not None
    assert driver.user("ann").attributes["n"] == values[-1]
