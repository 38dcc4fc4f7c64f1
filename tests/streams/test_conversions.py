"""Conversions: what counts, for which entry, within which window, and how often."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.campaigns.conversions import merged_windows
from streams.definitions import read_definitions
from streams.effects import CurrentsRecord
from streams.errors import BadDefinition
from streams.ids import share_of
from streams.profiles.row import OpenWindow
from streams.times import SECOND_MS, format_time
from streams.workspace import compile_workspace
from tests.driver import Driver
from tests.streams.test_campaigns import LOOKED, campaign, files, look

CONVERSION = "users.campaigns.Conversion"
KINDS: list[dict[str, Any]] = [
    {"name": "bought", "purchase": {}, "within": "10s"},
    {"name": "bought_cds", "purchase": {"product": "cds"}, "within": "4s"},
    {"name": "liked", "event": {"name": "like", "where": {"n": {"over": 1}}}, "within": "6s"},
    {"name": "came", "session": {}, "within": "3s"},
]
WITHIN = [10, 4, 6, 3]


def converting(**more: Any) -> dict[str, Any]:
    """A campaign that anyone may enter again and again, with every kind of conversion."""
    return campaign("c", LOOKED, **{"re_eligible_after": "0s", "conversions": KINDS, **more})


def conversions(driver: Driver) -> list[CurrentsRecord]:
    """The conversions so far."""
    return [record for record in driver.currents if record.event_type == CONVERSION]


class Step(NamedTuple):
    """After so many seconds something happens, that is said to have happened some seconds earlier."""

    after_s: int
    what: str
    ago_s: int


WHAT: dict[str, tuple[dict[str, Any], list[int]]] = {
    "look": ({"type": "event", "name": "look"}, []),
    "like": ({"type": "event", "name": "like", "properties": {"n": 2}}, [2]),
    "like a little": ({"type": "event", "name": "like", "properties": {"n": 1}}, []),
    "buy": ({"type": "purchase", "product_id": "cds", "currency": "EUR", "price": 2, "quantity": 3}, [0, 1]),
    "buy other": ({"type": "purchase", "product_id": "mcs", "currency": "EUR", "price": 5}, [0]),
    "come": ({"type": "session_start"}, [3]),
    "go": ({"type": "session_end"}, []),
    "nothing": ({}, []),
}
STEPS = st.lists(st.builds(Step, st.integers(0, 4), st.sampled_from(sorted(WHAT)), st.integers(0, 3)), max_size=25)


def model(steps: Sequence[Step], delay_s: int) -> list[tuple[int, int, int, str | None]]:
    """(index, second it happened, second of its entry, revenue) of each conversion, by looking at everything again."""
    now, entries, found, done = 0, list[tuple[int, int]](), list[tuple[int, int, int, str | None]](), set[Any]()
    for at, step in enumerate(steps):
        now += step.after_s
        time = now - step.ago_s
        decided = [(second, number) for second, number in entries if second <= now]
        body, indexes = WHAT[step.what]
        paid = False
        for index in indexes if decided else []:
            second, number = max(decided)
            is_open = second <= time and max(time, now) < second + WITHIN[index]
            if is_open and (number, index) not in done:
                done.add((number, index))
                revenue = None
                if body["type"] == "purchase" and not paid:
                    paid, revenue = True, str(Decimal(body["price"]) * body.get("quantity", 1))
                found.append((index, time, second, revenue))
        if step.what == "look":
            entries.append((max(now, time + delay_s), at))
    return found


@pytest.mark.parametrize("control", [0, 99])
@given(steps=STEPS)
def test_equal_to_looking_at_everything(steps: list[Step], control: int) -> None:
    """Whatever happens when, conversions are those of a model that remembers all; users in control convert alike."""
    driver = Driver(files(converting(control=control)))
    start_ms = driver.now_ms
    for step in steps:
        driver.advance(step.after_s * SECOND_MS)
        if step.what != "nothing":
            time = format_time(driver.now_ms - step.ago_s * SECOND_MS)
            driver.send({**WHAT[step.what][0], "external_id": "ann", "time": time})
    found = []
    for record in conversions(driver):
        told = json.loads(record.fields["conversion_behavior"])
        times = [record.time_ms - start_ms, told["sent_at"] * SECOND_MS - start_ms]
        index = record.fields["conversion_behavior_index"]
        found.append((index, times[0] // SECOND_MS, times[1] // SECOND_MS, told.get("revenue")))

    assert found == model(steps, 0)
    assert len({record.fields["id"] for record in conversions(driver)}) == len(found)
    if control and share_of("c", "ann") < control:
        assert {record.fields["message_variation_name"] for record in conversions(driver)} <= {"control"}


def happen(driver: Driver, what: str) -> None:
    """Something happens now."""
    driver.send({**WHAT[what][0], "external_id": "ann", "time": format_time(driver.now_ms)})


@pytest.mark.parametrize(("after_ms", "counts"), [(0, 1), (5_999, 1), (6_000, 0)])
def test_edges(after_ms: int, counts: int) -> None:
    """A window begins with the millisecond of the decision, and the millisecond at its end is outside."""
    driver = Driver(files(converting()))
    look(driver)
    driver.advance(after_ms)
    happen(driver, "like")

    assert len(conversions(driver)) == counts


def test_a_delay_moves_the_window() -> None:
    """The window of an entry that waits begins when its message is decided; what happens before does not count."""
    driver = Driver(files(converting(delay="20s")))
    look(driver)
    happen(driver, "buy")
    driver.advance(20_000)
    happen(driver, "like")

    assert [record.fields["conversion_behavior_index"] for record in conversions(driver)] == [2]


def test_a_row_holds_windows_only_while_they_are_open() -> None:
    """A window leaves the row when it is done, or with the first event behind its end, or behind its campaign."""
    driver = Driver(files(converting(conversions=KINDS[:1])))
    look(driver)
    assert set(driver.user("ann").windows) == {"c"}
    happen(driver, "buy")
    assert driver.user("ann").windows == {}
    look(driver)
    driver.advance(10_000)
    happen(driver, "go")
    assert driver.user("ann").windows == {}
    look(driver)
    driver.switch(read_definitions(files()))
    happen(driver, "go")
    assert driver.user("ann").windows == {}


def test_campaigns_convert_apart() -> None:
    """One event converts every campaign with a window open, in order of name, each with its own revenue."""
    driver = Driver(files(converting(), campaign("b", LOOKED, conversions=KINDS[:1])))
    look(driver)
    happen(driver, "buy")
    told = [(each.fields["campaign_name"], each.fields["conversion_behavior_index"]) for each in conversions(driver)]
    paid = [json.loads(each.fields["conversion_behavior"]).get("revenue") for each in conversions(driver)]

    assert told == [("b", 0), ("c", 0), ("c", 1)]
    assert paid == ["6", "6", None]


def test_what_is_refused_converts_nothing() -> None:
    """An event that the row cannot take leaves the window as it was."""
    driver = Driver(files(converting()))
    look(driver)
    before = driver.user("ann").windows
    driver.send({"type": "purchase", "external_id": "ann", "product_id": "p" * 10_000, "currency": "EUR", "price": 1})

    assert (conversions(driver), driver.user("ann").windows) == ([], before)


def test_merged_windows() -> None:
    """After a merge each campaign's last entry is the one that converts; of two at once the known user's."""
    early, late, same = OpenWindow(1, 1), OpenWindow(2, 1), OpenWindow(2, 7)
    assert merged_windows({"a": early, "b": late}, {"a": late, "b": same, "c": early}) == {
        "a": late,
        "b": late,
        "c": early,
    }


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ([{"name": "x"}], "exactly one of"),
        ([{"name": "x", "session": {}, "purchase": {}}], "exactly one of"),
        ([{"name": "x", "opens": {}, "clicks": {}}], "exactly one of"),
        ([{"name": "x", "clicks": {}}], "clicks: goes with the channel email"),
        ([{"name": "x", "session": {}, "within": "31d"}], "between 1s and 30d"),
        ([{"name": "x", "session": {}, "within": "0s"}], "between 1s and 30d"),
        (2 * KINDS[:1], "used twice"),
        ([*KINDS, {"name": "x", "session": {}}], "length <= 4"),
    ],
)
def test_refused(wrong: list[dict[str, Any]], fault: str) -> None:
    """What cannot be a conversion is refused in words that name the key."""
    with pytest.raises(BadDefinition) as refused:
        compile_workspace(read_definitions(files(converting(conversions=wrong))), 0)
    assert fault in str(refused.value)
