"""Holds reports to a recount: what they say of each campaign is what the rows of the export files come to."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tests.oracle.reports import DAY, HOUR, Counted, recount, rows_of_files

if TYPE_CHECKING:
    from tests.chaos.verifier import Found, Verdict  # which calls this

SECONDS: Final = {"hour": HOUR, "day": DAY}
SHOWN_MAX: Final = 4
EMAIL: Final = {
    "sent": ("sent",),
    "opens": ("opens", "machine_opens"),
    "unique_opens": ("unique_opens_all",),
    "clicks": ("clicks",),
    "unique_clicks": ("unique_clicks",),
    "unsubscribes": ("unsubscribes",),
    "bounces": ("bounces",),
    "delivered": ("delivered",),
    "reported_spam": ("spam",),
    "errors": ("errors",),
    "unique_recipients": ("recipients",),
    "conversions": ("conversions_a",),
    "conversions_by_send_time": ("conversions_by_send_a",),
}
"""What the fields of the REST API are, in the words of the recount."""

Place = tuple[str, str, str, int]


def hold_reports(found: Found, verdict: Verdict) -> None:
    """Every figure, over all time, by the day and by the hour, of every campaign and variant."""
    if not found.reports and not found.series:
        return
    wanted = recount(rows_of_files(found.exports))
    by_send = "conversions_by_send"  # of which the report itself says nothing
    ours = {place: {k: v for k, v in each.items() if not k.startswith(by_send)} for place, each in wanted.items()}
    _compare("reports", told(found.reports), {place: each for place, each in ours.items() if each}, verdict)
    if found.series:
        _series(found.series, wanted, verdict)


def told(reports: dict[tuple[str, str], dict[str, Any]]) -> Counted:
    """The figures of reports in the words of the recount."""
    figures: Counted = {}
    for (campaign, unit), answer in reports.items():
        starts = [round(datetime.fromisoformat(time).timestamp()) for time in answer["times"]]
        for variant in answer["variants"]:
            name = variant["variant"]
            figures[campaign, name, "all", 0] = _figures(variant["totals"])
            for start, counts in zip(starts, variant["series"], strict=True):
                figures[campaign, name, unit, start // SECONDS[unit]] = _figures(counts)
    return {place: each for place, each in figures.items() if each}


def _figures(counts: dict[str, Any]) -> dict[str, Any]:
    revenue = {f"revenue {currency}": Decimal(amount) for currency, amount in counts["revenue"].items()}
    plain = {name: number for name, number in counts.items() if name != "revenue"}
    return {name: number for name, number in {**plain, **revenue}.items() if number}


def _compare(what: str, found: Counted, wanted: Counted, verdict: Verdict) -> None:
    places = sorted(place for place in found.keys() | wanted.keys() if found.get(place) != wanted.get(place))
    if places:
        shown = "; ".join(f"{place}: {found.get(place)}, not {wanted.get(place)}" for place in places[:SHOWN_MAX])
        verdict.fault(f"{what}: {len(places)} of {len(wanted)} differ from the recount, such as {shown}")


def _series(series: dict[str, list[dict[str, Any]]], wanted: Counted, verdict: Verdict) -> None:
    """The same of the API's data series, which are by the day."""
    for campaign, days in series.items():
        for day in days:
            number = round(datetime.fromisoformat(f"{day['time']}T00:00:00+00:00").timestamp()) // DAY
            for message in (each for messages in day["messages"].values() for each in messages):
                counts = wanted.get((campaign, message["variation_name"], "day", number), {})
                for field, names in EMAIL.items():
                    have, want = message.get(field, 0), sum(counts.get(name, 0) for name in names)
                    if field in message and have != want:
                        place = f"{campaign} {message['variation_name']} {day['time']}"
                        verdict.fault(f"data series: {place}: {field} is {have}, not {want}")
