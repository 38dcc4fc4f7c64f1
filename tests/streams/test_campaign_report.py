"""Reports in words and numbers: nothing lost between buckets and answer, and no cell that a spreadsheet evaluates."""

import csv
import io
from decimal import Decimal
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.campaign_report import Found, Period, gather, period_of, report, safe_cell, to_csv, versus
from streams.reports import DAY_S, HOUR_S, About, Bucket, Counts, Unit

EVIL = ("=", "+", "-", "@", "\t", "\r")
NAMES = st.one_of(st.text(max_size=12), st.builds(str.__add__, st.sampled_from(EVIL), st.text(max_size=8)))


@given(NAMES, NAMES, st.integers(0, 9), st.decimals(0, 1_000, places=2))
def test_no_cell_is_a_formula(campaign: str, variant: str, sent: int, amount: Decimal) -> None:
    """Whatever things are called, no text of the CSV begins as a formula does, and every name can be read back."""
    series = {variant: {7: Counts(sent=sent, revenue={"EUR": amount})}}
    answer = report(campaign, Found(About(), {}, series), Period("day", 7, 7), [])
    head, *rows = csv.reader(io.StringIO(to_csv(answer), newline=""))

    assert [cell for row in (head, *rows) for cell in row[:3] if cell.startswith(EVIL)] == []
    [row] = [each for each in rows if each[1] in (variant, "'" + variant)]
    assert [cell.removeprefix("'") for cell in row[:2]] == [name.removeprefix("'") for name in (campaign, variant)]
    assert (int(row[head.index("sent")]), Decimal(row[head.index("revenue_EUR")])) == (sent, amount)


def test_safe_cells_are_left_alone() -> None:
    """Only what a spreadsheet would evaluate gets a quote."""
    assert [safe_cell(text) for text in ("welcome", "", "a=b", "=a", "@a")] == ["welcome", "", "a=b", "'=a", "'@a"]


PLACES = st.tuples(st.sampled_from("cd"), st.sampled_from(("", "a", "control")), st.integers(0, 9))


@given(st.lists(st.tuples(PLACES, st.integers(1, 5))), st.integers(0, 9), st.integers(1, 10))
def test_buckets_of_partitions_are_added(rows: list[tuple[tuple[str, str, int], int]], last: int, length: int) -> None:
    """A campaign's series holds what lies in the period, of whichever partition, and nothing else."""
    period = Period("day", last - length + 1, last)
    found = gather("c", [], [(Bucket(*place[:2], "day", place[2]), Counts(sent=sent)) for place, sent in rows], period)
    answer = report("c", found, period, [])

    assert len(answer["times"]) == length
    for each in answer["variants"]:
        for at, counts in enumerate(each["series"]):
            place = ("c", each["variant"], period.first + at)
            assert counts["sent"] == sum(sent for where, sent in rows if where == place)
    inside = sum(sent for (campaign, _, day), sent in rows if campaign == "c" and period.first <= day <= last)
    assert sum(counts["sent"] for each in answer["variants"] for counts in each["series"]) == inside


@pytest.mark.parametrize(("unit", "size"), [("day", DAY_S), ("hour", HOUR_S)])
def test_a_period_ends_with_the_bucket_of_its_end(unit: Unit, size: int) -> None:
    """The bucket in which the last second lies is the last one, from its first second to its last."""
    assert [period_of(unit, 3, second) for second in (5 * size, 6 * size - 1)] == 2 * [Period(unit, 3, 5)]


def test_defined_variants_come_first_and_control_last() -> None:
    """Variants stand as they are written, then those that are gone, then the control group; each with its rates."""
    totals = {"control": Counts(control=10, conversions=[1, 0, 0, 0]), "old": Counts(sent=1), "a": Counts(sent=20)}
    totals["a"].conversions = [4, 0, 0, 0]
    answer = report("c", Found(About(), totals, {}), Period("day", 0, 0), ["b", "a", "control"])

    assert [each["variant"] for each in answer["variants"]] == ["b", "a", "old", "control"]
    assert [each["rates"]["conversions_a"] for each in answer["variants"]] == [None, 0.2, 0, 0.1]
    assert [each["versus_control"] is None for each in answer["variants"]] == [True, False, False, True]


def test_who_gets_no_message_counts_among_the_treated_as_in_the_control_group() -> None:
    """Half of both groups have no address, and one in ten of all convert: there is no uplift."""
    treated = Counts(sent=400, aborts=300, errors=150, bounces=150, conversions=[100, 0, 0, 0])
    totals = {"a": treated, "control": Counts(control=1_000, conversions=[100, 0, 0, 0])}
    first = report("c", Found(About(), totals, {}), Period("day", 0, 0), ["a", "control"])["variants"][0]

    assert first["rates"]["conversions_a"] == 0.1
    assert first["versus_control"] == {"uplift": 0.0, "confidence": 0.0}


def test_versus() -> None:
    """The uplift is relative, the confidence that of the textbook's test of two shares."""
    found = versus(120, 1_000, 100, 1_000)
    assert found is not None
    assert isclose(found["uplift"], 0.2, abs_tol=1e-6)
    assert isclose(found["confidence"], 0.8466, abs_tol=1e-3)  # z = 1.4293, by hand
    assert [versus(1, 0, 1, 1), versus(1, 1, 0, 5), versus(1, 1, 1, 0)] == [None, None, None]
    assert versus(5, 5, 5, 5) == {"uplift": 0.0, "confidence": 0.0}
