"""When a disk is low: below either bound, and until a quarter more is free."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import BadSetting
from streams.policy.disk import DiskMark
from streams.policy.retention import Kept, read_retention

GIB = 1024**3


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=30), st.integers(0, 2_000), st.floats(0, 0.5))
def test_low_begins_below_the_mark_and_ends_a_quarter_above(free: list[int], least: int, share: float) -> None:
    """Whatever is free when, a disk below the mark is low, one a quarter above is not, between nothing changes."""
    mark, wanted, is_low = DiskMark(least, share), max(least, share * 3_000), False
    for now in free:
        was_low, is_low = is_low, mark.is_low(now, 3_000, was_low=is_low)
        if now < wanted:
            assert is_low
        elif now >= wanted * 1.25:
            assert not is_low
        else:
            assert is_low == was_low


def test_retention_is_read_over_the_defaults() -> None:
    """A named topic keeps what is said, the others what the catalogue says; for ever stays for ever."""
    kept = read_retention("events=3d/2GiB, currents=1h/500MiB")
    assert kept["events"] == Kept(3 * 86_400, 2 * GIB)
    assert kept["currents"] == Kept(3_600, 500 * 1024**2)
    assert kept["mailbox"] == Kept(7 * 86_400, 8 * GIB)
    assert "definitions" not in kept


@pytest.mark.parametrize(
    "text", ["events", "events=3d", "events=3/2GiB", "events=3d/2GB", "definitions=1d/1GiB", "x=1d/1"]
)
def test_a_retention_that_cannot_be_read_is_named(text: str) -> None:
    """A wrong part is refused with its text and the way to write it."""
    with pytest.raises(BadSetting, match=f"HEADRACE_RETENTION={text}"):
        read_retention(text)
