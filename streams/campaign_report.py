"""A campaign's report as values: counters of all partitions added, variant by variant, with rates, and as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from math import erf, sqrt
from typing import Any, Final, NamedTuple

from streams.campaigns.variants import CONTROL
from streams.reports import BEHAVIOURS_MAX, DAY_S, HOUR_S, NUMBERS, About, Bucket, Counts, Unit
from streams.times import SECOND_MS, format_time

LENGTH_MAX: Final[Mapping[Unit, int]] = {"day": 100, "hour": 35 * 24}
"""Buckets that one answer may have."""

LETTERS: Final = "ABCD"
_SIZES: Final[Mapping[Unit, int]] = {"day": DAY_S, "hour": HOUR_S}
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r")
_CONVERSIONS: Final = tuple(f"conversions_{letter.lower()}" for letter in LETTERS)


class Period(NamedTuple):
    """Consecutive buckets: the numbers of the first and the last."""

    unit: Unit
    first: int
    last: int

    def start_s(self, number: int) -> int:
        """When a bucket begins."""
        return number * _SIZES[self.unit]


class Found(NamedTuple):
    """What was found of a campaign: per variant the counts over all time, and those of each bucket."""

    about: About
    totals: Mapping[str, Counts]
    series: Mapping[str, Mapping[int, Counts]]


def period_of(unit: Unit, length: int, end_s: int) -> Period:
    """The buckets that end with the one in which a second lies; `length` is at least 1."""
    last = end_s // _SIZES[unit]
    return Period(unit, last - length + 1, last)


def gather(
    campaign: str, abouts: Iterable[tuple[str, About]], rows: Iterable[tuple[Bucket, Counts]], period: Period
) -> Found:
    """Add up what partitions have of a campaign; buckets outside of the period are passed over."""
    totals: dict[str, Counts] = {}
    series: dict[str, dict[int, Counts]] = {}
    for bucket, counts in rows:
        if bucket.campaign != campaign:
            continue
        if bucket.unit == "all":
            totals.setdefault(bucket.variant, Counts()).add(counts)
        elif bucket.unit == period.unit and period.first <= bucket.number <= period.last:
            series.setdefault(bucket.variant, {}).setdefault(bucket.number, Counts()).add(counts)
    return Found(merge_abouts(about for name, about in abouts if name == campaign), totals, series)


def merge_abouts(parts: Iterable[About]) -> About:
    """What partitions know of a campaign, as one."""
    whole = About()
    for part in parts:
        whole.add(part)
    return whole


def total_of(parts: Iterable[Counts]) -> Counts:
    """The sum of counts."""
    whole = Counts()
    for part in parts:
        whole.add(part)
    return whole


def variants_of(found: Found, defined: Sequence[str]) -> list[str]:
    """Every variant of a report: those defined, in their order, others that were sent, the control group last."""
    others = sorted({*found.totals, *found.series} - {*defined, CONTROL})
    has_control = CONTROL in {*found.totals, *found.series, *defined}
    names = [*(name for name in defined if name != CONTROL), *others]
    return [*names, *([CONTROL] if has_control else [])]


def report(campaign: str, found: Found, period: Period, defined: Sequence[str]) -> dict[str, Any]:
    """The report as JSON has it.

    `totals` are over all time, `series` has each bucket of the period, also one in which nothing happened. Rates are
    shares of what was sent, of conversions of the entries (`entries_of`); None where there is nothing to share.
    """
    names = variants_of(found, defined)
    numbers = range(period.first, period.last + 1)
    nothing = Counts()
    return {
        "campaign": campaign,
        "channel": found.about.channel,
        "first_sent": _time(found.about.first_sent_s),
        "last_sent": _time(found.about.last_sent_s),
        "unit": period.unit,
        "times": [_time(period.start_s(number), is_always=True) for number in numbers],
        "variants": [
            {
                "variant": name,
                "is_control": name == CONTROL,
                "totals": numbers_of(found.totals.get(name, nothing)),
                "rates": rates_of(found.totals.get(name, nothing)),
                "versus_control": _against(found.totals, name),
                "series": [numbers_of(found.series.get(name, {}).get(number, nothing)) for number in numbers],
            }
            for name in names
        ],
    }


def numbers_of(counts: Counts) -> dict[str, Any]:
    """Counts by their names, conversions by letter, revenue as decimal text by currency."""
    return {
        **{name: getattr(counts, name) for name in NUMBERS},
        **dict(zip(_CONVERSIONS, counts.conversions, strict=True)),
        "revenue": {currency: str(amount) for currency, amount in sorted(counts.revenue.items())},
    }


def rates_of(counts: Counts) -> dict[str, float | None]:
    """Shares, rounded to six digits; the unique opens and clicks of people, conversions of each entry."""
    entries = entries_of(counts)
    shares: dict[str, tuple[int, int]] = {
        "delivered": (counts.delivered, counts.sent),
        "opened": (counts.unique_opens, counts.sent),
        "clicked": (counts.unique_clicks, counts.sent),
        "unsubscribed": (counts.unsubscribes, counts.sent),
        "bounced": (counts.bounces, counts.sent + counts.bounces),
    }
    shares |= {_CONVERSIONS[at]: (counts.conversions[at], entries) for at in range(BEHAVIOURS_MAX)}
    return {name: round(part / whole, 6) if whole else None for name, (part, whole) in shares.items()}


def entries_of(counts: Counts) -> int:
    """How many entered, each of whom may convert: the control group, or all whose message has ended, however it did.

    The control group cannot be told who would have had no message, so those without one count among the treated, too.
    A mail that bounces after it was sent counts twice, which makes the rate too low rather than too high.
    """
    return counts.control or counts.sent + counts.aborts + counts.errors + counts.bounces


def versus(converted: int, entries: int, control_converted: int, control_entries: int) -> dict[str, float] | None:
    """How a variant's conversion rate stands to the control group's; None while either has nothing to say.

    `uplift` is the relative change. `confidence` is that of a two-sided test of two shares, from 0 to 1; it means
    little below some hundred entries each.
    """
    if not (entries and control_entries and control_converted):
        return None
    rate, base = converted / entries, control_converted / control_entries
    pooled = (converted + control_converted) / (entries + control_entries)
    spread = sqrt(pooled * max(0.0, 1 - pooled) * (1 / entries + 1 / control_entries))
    confidence = erf(abs(rate - base) / spread / sqrt(2)) if spread else 0.0
    return {"uplift": round(rate / base - 1, 6), "confidence": round(confidence, 6)}


def _against(totals: Mapping[str, Counts], name: str) -> dict[str, float] | None:
    own, control = totals.get(name), totals.get(CONTROL)
    if own is None or control is None or name == CONTROL:
        return None
    return versus(own.conversions[0], entries_of(own), control.conversions[0], control.control)


def to_csv(answer: Mapping[str, Any]) -> str:
    """A report's series as CSV: one row per variant and bucket, lines ended by CR LF, ready for a spreadsheet.

    A text that a spreadsheet would take for a formula has a quote before it.
    """
    currencies = sorted(
        {currency for each in answer["variants"] for counts in each["series"] for currency in counts["revenue"]}
    )
    text = io.StringIO()
    writer = csv.writer(text)
    names = (*NUMBERS, *_CONVERSIONS)
    writer.writerow(["campaign", "variant", "time", *names, *(safe_cell(f"revenue_{each}") for each in currencies)])
    for each in answer["variants"]:
        for time, counts in zip(answer["times"], each["series"], strict=True):
            amounts = [counts["revenue"].get(currency, Decimal(0)) for currency in currencies]
            texts = [safe_cell(answer["campaign"]), safe_cell(each["variant"]), time]
            writer.writerow([*texts, *(counts[name] for name in names), *amounts])
    return text.getvalue()


def safe_cell(text: str) -> str:
    """A text that no spreadsheet evaluates.

    >>> safe_cell("=1+1"), safe_cell("welcome")
    ("'=1+1", 'welcome')
    """
    return "'" + text if text.startswith(_DANGEROUS) else text


def _time(second: int, *, is_always: bool = False) -> str | None:
    return format_time(second * SECOND_MS) if second or is_always else None
