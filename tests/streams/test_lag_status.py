"""The sliding-window status of a partition's reader, held to Burrow's rules written down a second time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.lag_status import SAMPLE_MS, WINDOW_MS, WINDOW_SAMPLES, Sample, Verdict, Window, worst

START_MS = 1_000_000


def judged(positions: list[int], ends: list[int], *, retention_ms: int | None = None, later_ms: int = 0) -> Verdict:
    """The verdict after a sample every two seconds."""
    window, at_ms = Window(retention_ms), START_MS
    verdict = window.judge(at_ms)
    for position, end in zip(positions, ends, strict=True):
        at_ms += SAMPLE_MS
        window.add(Sample(at_ms, position, end))
        verdict = window.judge(at_ms)
    return window.judge(at_ms + later_ms) if later_ms else verdict


def burrow(positions: list[int], lags: list[int]) -> str:
    """Burrow's rules over a full window of one look more, told naively."""
    if 0 in lags:
        return "OK"
    if len(set(positions)) == 1:
        return "STALL"
    return "WARN" if all(later >= earlier for earlier, later in pairwise(lags)) else "OK"


steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=WINDOW_SAMPLES, max_size=WINDOW_SAMPLES)


@given(steps, st.integers(0, 5))
def test_a_status_is_at_least_what_burrow_says(moves: list[tuple[int, int]], backlog: int) -> None:
    """STALL is exactly Burrow's; WARN is Burrow's, and a rising trend that single dips do not hide."""
    position, end = 0, backlog
    positions, ends = [0], [backlog]
    for read, arrived in moves:
        end += arrived
        position = min(end, position + read)
        positions.append(position)
        ends.append(end)
    lags = [late - at for late, at in zip(ends, positions, strict=True)]

    found, wanted = judged(positions, ends).status, burrow(positions, lags)
    assert (found == "STALL") == (wanted == "STALL")
    assert found == wanted or (found, wanted) == ("WARN", "OK")
    assert found == "OK" or 0 not in lags


def test_noise_is_no_trend_and_a_trend_hides_in_no_noise() -> None:
    """A busy reader whose lag goes up and down is OK; one that loses ground between its ups and downs is warned of."""
    count = WINDOW_SAMPLES + 5
    noise = [[500, 90, 320, 700, 210][at % 5] for at in range(count)]
    positions = [1_000 * at for at in range(count)]

    assert judged(positions, [at + lag for at, lag in zip(positions, noise, strict=True)]).status == "OK"
    rising = [at + lag + 150 * step for step, (at, lag) in enumerate(zip(positions, noise, strict=True))]
    assert judged(positions, rising).status == "WARN"


def test_a_status_says_since_when_it_holds() -> None:
    """A stall began when the position last moved, and its time stays while it lasts."""
    positions = [5, 6, 7, *[7] * (WINDOW_SAMPLES + 9)]
    verdict = judged(positions, [10] * len(positions))

    assert (verdict.status, verdict.since_ms) == ("STALL", START_MS + 3 * SAMPLE_MS)
    assert "3 records wait" in verdict.why


def test_a_reader_that_nobody_hears_of_has_stopped() -> None:
    """STOP once a whole window passed without a sample, since the last one; not a moment earlier."""
    assert judged([5, 6], [6, 6], later_ms=WINDOW_MS - 1).status == "OK"
    verdict = judged([5, 6], [6, 6], later_ms=WINDOW_MS)
    assert (verdict.status, verdict.since_ms) == ("STOP", START_MS + 2 * SAMPLE_MS)


def test_the_end_moves_on_while_nobody_reads() -> None:
    """A partition without a reader keeps counting its lag."""
    window = Window()
    window.add(Sample(START_MS, 5, 6))
    window.hear_end(90)
    assert window.judge(START_MS + WINDOW_MS).why.startswith("nobody reads it; 85 records")


@pytest.mark.parametrize(("age_ms", "status"), [(49_999, "OK"), (50_000, "WARN")])
def test_retention_is_warned_of_before_it_overtakes(age_ms: int, status: str) -> None:
    """At half of its topic's retention a reader's next record is warned about, however fast it reads."""
    window = Window(retention_ms=100_000)
    window.add(Sample(START_MS, 5, 9, 0, START_MS - age_ms))
    assert window.judge(START_MS).status == status


def test_retention_by_size_is_warned_of_too() -> None:
    """A log whose start has just jumped further than the reader is ahead of it will overtake it with the next jump."""
    window = Window(retention_ms=10**9)
    window.add(Sample(START_MS, 900, 5_000, 0, START_MS))
    window.add(Sample(START_MS + SAMPLE_MS, 950, 5_000, 500, START_MS))
    assert window.judge(START_MS + SAMPLE_MS).status == "WARN"
    window.add(Sample(START_MS + 2 * SAMPLE_MS, 990, 5_000, 1_000, START_MS))
    assert window.judge(START_MS + 2 * SAMPLE_MS).status == "STOP"


def test_lag_in_seconds_is_the_records_own_age() -> None:
    """By the record's time where known, else since the window first saw the end beyond the position; 0 without lag."""
    window = Window()
    window.add(Sample(START_MS, 5, 5))
    assert window.behind_ms(START_MS + 9) == 0
    window.add(Sample(START_MS + SAMPLE_MS, 5, 7))
    window.add(Sample(START_MS + 2 * SAMPLE_MS, 5, 8))
    assert window.behind_ms(START_MS + 3 * SAMPLE_MS) == 2 * SAMPLE_MS
    window.add(Sample(START_MS + 3 * SAMPLE_MS, 6, 8, 0, START_MS - 70))
    assert window.behind_ms(START_MS + 3 * SAMPLE_MS) == 3 * SAMPLE_MS + 70


def test_the_gravest_status_wins() -> None:
    """STOP before STALL before WARN before OK."""
    assert [worst([]), worst(["OK", "WARN"]), worst(["STOP", "STALL", "OK"])] == ["OK", "WARN", "STOP"]
