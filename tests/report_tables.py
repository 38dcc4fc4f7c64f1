"""The counters of a store in the words of `tests/oracle/reports.py`."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from streams.reports import NUMBERS, Bucket, Counts, Unit
from tables.reports import ReportRows, read_told
from tables.store import Store
from tests.oracle.reports import Counted

UNITS: tuple[Unit, ...] = ("all", "day", "hour")


def counted(store: Store, partitions: Iterable[int]) -> Counted:
    """Every counter of these partitions, added."""
    rows: list[tuple[Bucket, Counts]] = []
    for partition in partitions:
        for key, value in ReportRows(store).told(partition):
            name, row = read_told(key, value)
            if isinstance(name, Bucket) and isinstance(row, Counts):
                rows.append((name, row))
    return in_words(rows)


def in_words(rows: Iterable[tuple[Bucket, Counts]]) -> Counted:
    """Rows of counts, added, without what did not happen."""
    found: Counted = {}
    for bucket, counts in rows:
        into = found.setdefault((bucket.campaign, bucket.variant, bucket.unit, bucket.number), {})
        for name, number in _numbers(counts).items():
            into[name] = into.get(name, 0) + number
    return {place: {name: number for name, number in into.items() if number} for place, into in found.items()}


def _numbers(counts: Counts) -> dict[str, Any]:
    numbers: dict[str, int | Decimal] = {name: getattr(counts, name) for name in NUMBERS}
    for at, letter in enumerate("abcd"):
        numbers[f"conversions_{letter}"] = counts.conversions[at]
        numbers[f"conversions_by_send_{letter}"] = counts.conversions_by_send[at]
    return numbers | {f"revenue {currency}": amount for currency, amount in counts.revenue.items()}
