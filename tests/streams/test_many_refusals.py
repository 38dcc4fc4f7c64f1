"""A record of which much is refused: few copies of it, and a replay of each object all the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.dead_letters import LETTERS_BYTES_MIN, LETTERS_TIMES_MAX
from streams.intake import route
from streams.records import Output, Record
from streams.replays import read_letter, replayed_items, replays_of
from tests.driver import Driver

NOW_MS = 1_764_000_000_000


def _record(value: bytes) -> Record:
    return Record(7, NOW_MS, None, value)


def _letters(value: bytes) -> list[Output]:
    return [each for each in route(_record(value), "t", 0, 1, "wall") if each.topic == "dead-letters"]


def _refused_by(letters: list[Output]) -> set[int]:
    """The items that a replay of all of them is about."""
    read = [read_letter(Record(at, NOW_MS, each.key, each.value, each.headers)) for at, each in enumerate(letters)]
    (again,) = replays_of(read)
    items = replayed_items(again.headers)
    assert items is not None
    return set(items)


@given(st.lists(st.booleans(), min_size=1, max_size=600), st.integers(0, 3_000))
def test_every_refused_object_is_replayed_from_few_copies(good: list[bool], room: int) -> None:
    """However large the record and however much of it is refused, its letters are bounded and name every object."""
    times = {True: "2025-01-01T00:00:00Z", False: 1_700_000_000}
    events = [{"external_id": "a", "name": "x" * (1 + room % 200), "time": times[each]} for each in good]
    value = json.dumps({"events": events, "room": "x" * room}).encode()
    letters = _letters(value)

    assert sum(len(each.value) for each in letters) <= max(LETTERS_TIMES_MAX * len(value), LETTERS_BYTES_MIN)
    refused = {at for at, each in enumerate(good) if not each}
    assert (_refused_by(letters) if letters else set()) == refused


def test_ten_thousand_refusals_take_no_more_than_eight_records() -> None:
    """A body of a producer that writes seconds costs about its own size, and its good objects count."""
    bad = {"external_id": "a", "name": "opened", "time": 1_700_000_000}
    good = {"external_id": "b", "name": "opened"}
    value = json.dumps({"events": [*[bad] * 9_999, good]}).encode()
    driver = Driver({})
    driver.send(value)

    assert len(driver.dead_letters) == LETTERS_TIMES_MAX
    assert _refused_by(driver.dead_letters) == set(range(9_999))
    assert driver.user("b").events["opened"].count == 1


@pytest.mark.parametrize("count", [1, LETTERS_TIMES_MAX, 30])
def test_few_refusals_of_a_small_record_have_a_letter_each(count: int) -> None:
    """Each object of an ordinary body has its own reason."""
    value = json.dumps({"events": [{"external_id": "a"}] * count}).encode()

    assert [dict(each.headers)["item"] for each in _letters(value)] == [str(at).encode() for at in range(count)]
