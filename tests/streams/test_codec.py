"""Keys go to Java's partitions, and times and durations read back as they were written."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from aiokafka.partitioner import murmur2 as kafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import murmur2, pack, partition_of
from streams.events import Purchase
from streams.mailbox import Cause, Happening, Outcome, Switch, Tick, decode_letter
from streams.times import DAY_MS, format_duration, format_time, hour_of, parse_duration, parse_time

YEAR_1_MS = -62_135_596_800_000
YEAR_9999_END_MS = 253_402_300_799_999
times_ms = st.integers(YEAR_1_MS, YEAR_9999_END_MS) | st.integers(-DAY_MS, DAY_MS)

# From UtilsTest.testMurmur2 of Apache Kafka, as Java's signed integers.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", JAVA)
def test_murmur2_is_javas(key: bytes) -> None:
    """The hash of each key in Kafka's own unit test is the number that the Java client computes."""
    assert murmur2(key) == JAVA[key] % 2**32


@given(st.binary(max_size=70))
def test_murmur2_is_aiokafkas(key: bytes) -> None:
    """Any key hashes as in an independent client, whatever its length modulo four."""
    assert murmur2(key) == kafka_murmur2(key) % 2**32


@given(st.text(max_size=20), st.integers(1, 1024))
def test_the_partition_is_within_range_and_javas(user: str, partitions: int) -> None:
    """A key's partition is the positive hash modulo the number of partitions, as Java's partitioner has it."""
    expected = (kafka_murmur2(user.encode()) & 0x7FFFFFFF) % partitions

    assert partition_of(user.encode(), partitions) == expected


@given(times_ms)
def test_times_read_back(time_ms: int) -> None:
    """A time of any year from 1 to 9999 reads back to the same millisecond, and an independent reader agrees."""
    text = format_time(time_ms)

    assert len(text) == len("2026-01-31T12:00:00.000Z")
    assert parse_time(text) == time_ms
    assert datetime.fromisoformat(text) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)


@given(times_ms)
def test_hours_sort_as_times(time_ms: int) -> None:
    """The hour that names an export file is the start of the time's ISO form, so names sort by time."""
    assert hour_of(time_ms) == format_time(time_ms)[:13].replace("T", "-")


@given(st.integers(0, YEAR_9999_END_MS - DAY_MS), st.integers(-14 * 60, 14 * 60))
def test_an_offset_is_the_same_moment(time_ms: int, minutes: int) -> None:
    """A time written with any zone's offset is the same millisecond as in UTC."""
    zone = timezone(timedelta(minutes=minutes))
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)

    assert parse_time(moment.astimezone(zone).isoformat()) == time_ms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01 00:00:01.0019Z", 1_001),
        ("1969-12-31T23:59:59.9999Z", -1),
        ("1970-01-01T02:00:00+02:00", 0),
        ("01/02/1970", DAY_MS),
    ],
)
def test_accepted_forms(text: str, expected: int) -> None:
    """Without an offset a time is UTC, and fractions of milliseconds round down on both sides of 1970."""
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "2024-02-30", "1700000000", "0001-01-01T00:00:00+14:00"])
def test_refused_times(text: str) -> None:
    """What is no time, or lies before the year 1 in UTC and could never be written again, is refused."""
    with pytest.raises((ValueError, OverflowError)):
        parse_time(text)


@given(st.integers(0, 10**9))
def test_durations_read_back(seconds: int) -> None:
    """Any whole number of seconds reads back from its shortest text."""
    assert parse_duration(format_duration(seconds * 1_000)) == seconds * 1_000


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("90d", 90 * 86_400), ("12h", 43_200), ("30m", 1_800), ("1s", 1), ("0s", 0), ("1d 12h", 129_600)],
)
def test_durations(text: str, expected_s: int) -> None:
    """The units of the public contract have their lengths, and parts add up."""
    assert parse_duration(text) == expected_s * 1_000


@pytest.mark.parametrize("text", ["", " ", "1", "d", "-1d", "1.5h", "1w", "1d12h", "1D"])
def test_refused_durations(text: str) -> None:
    """What is no duration is refused, and never read as nothing."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_letters_read_back() -> None:
    """Every kind of letter that other parts append to a mailbox reads back as it was."""
    bought = Purchase("cds", "USD", Decimal("0.10"), 3, -5, {"a": [1, None]}, "id")
    letters = (
        Tick(5),
        Switch(3),
        Outcome("d", 2, "held", 9, "busy", "a@b"),
        Happening(bought, Cause("t", 0, 1, 2)),
    )
    for letter in letters:
        assert decode_letter(pack(letter)) == letter
