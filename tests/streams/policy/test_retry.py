"""When a failed attempt is made again: the same for the same attempt, later each time, five times at most."""

from hypothesis import given
from hypothesis import strategies as st

from streams.policy.retry import RETRIES_MAX, RETRY_AFTER_S_MAX, retry_delay_s

names = st.text(st.sampled_from("0123456789abcdef"), min_size=32, max_size=32)
attempts = st.integers(1, RETRIES_MAX)


@given(names)
def test_all_retries_lie_within_half_an_hour(name: str) -> None:
    """Each delay is longer than the one before, their sum is under 30 minutes, and after five there is none."""
    delays = [retry_delay_s(name, attempt) for attempt in range(1, RETRIES_MAX + 1)]
    known = [delay for delay in delays if delay is not None]

    assert known == sorted(known)
    assert len(known) == RETRIES_MAX == 5
    assert 0 < sum(known) < 30 * 60
    assert retry_delay_s(name, RETRIES_MAX + 1) is None


@given(names)
def test_retries_of_the_unreachable_are_spread_over_a_day(name: str) -> None:
    """The first is as early as any, the last after hours, and all of them lie within 24."""
    delays = [retry_delay_s(name, attempt, is_unreachable=True) or 0 for attempt in range(1, RETRIES_MAX + 1)]

    assert delays[0] == retry_delay_s(name, 1)
    assert delays == sorted(delays)
    assert 9 * 3_600 < sum(delays) < 24 * 3_600
    assert retry_delay_s(name, RETRIES_MAX + 1, is_unreachable=True) is None


@given(names, attempts, st.none() | st.floats(0, 1e9))
def test_the_same_failure_waits_the_same_time(name: str, attempt: int, after_s: float | None) -> None:
    """The delay depends on its arguments alone; what the other side asks for lengthens it, within a bound."""
    delay_s = retry_delay_s(name, attempt, after_s)
    plain_s = retry_delay_s(name, attempt)

    assert delay_s is not None
    assert plain_s is not None
    assert delay_s == retry_delay_s(name, attempt, after_s)
    assert delay_s == max(plain_s, min(after_s or 0, RETRY_AFTER_S_MAX))


def test_dispatches_that_failed_together_come_back_apart() -> None:
    """A thousand first retries are spread over the upper half of their delay."""
    delays = [retry_delay_s(f"{at:032x}", 1) or 0 for at in range(1_000)]

    assert len(set(delays)) == 1_000
    assert 0.5 <= min(delays) < 0.55
    assert 0.95 < max(delays) < 1


@given(names, st.integers(RETRIES_MAX + 1, 1_000), st.floats(0, 1e9))
def test_the_other_side_cannot_ask_for_more_retries(name: str, attempt: int, after_s: float) -> None:
    """After the last retry a Retry-After changes nothing."""
    assert retry_delay_s(name, attempt, after_s) is None
