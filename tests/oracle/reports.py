"""What reports must say, counted a second time from the rows of export files; nothing of Headrace is imported.

Rows may come in any order where no memory grows old among them: first opens and clicks are by dispatch, recipients
by campaign, user and UTC day.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro

DAY, HOUR = 86_400, 3_600
PLAIN = {
    "Send": "sent",
    "Delivery": "delivered",
    "Unsubscribe": "unsubscribes",
    "Bounce": "bounces",
    "SoftBounce": "soft_bounces",
    "MarkAsSpam": "spam",
    "Failure": "errors",
    "Abort": "aborts",
}

Row = dict[str, Any]
Counted = dict[tuple[str, str, str, int], dict[str, Any]]
"""(campaign, variant, `all`, `day` or `hour`, its number) -> what happened, without what did not."""


def rows_of_files(folder: Path) -> list[tuple[str, Row]]:
    """Every row of the export files below a folder, with its event type."""
    rows: list[tuple[str, Row]] = []
    for path in sorted(folder.glob("event_type=*/date=*/*.avro")):
        with path.open("rb") as file:
            kind = path.parts[-3].removeprefix("event_type=")
            found: Any = fastavro.reader(file)
            rows += [(kind, row) for row in found]
    return rows


class _Recount:
    """One pass over rows."""

    def __init__(self) -> None:
        self.found: defaultdict[tuple[str, str, str, int], dict[str, int | Decimal]] = defaultdict(dict)
        self.firsts: dict[tuple[str, ...], tuple[int, str, str]] = {}

    def count(self, row: Row, name: str, amount: int | Decimal = 1, at: int | None = None) -> None:
        second = row["time"] if at is None else at
        self._add(second, row["campaign_name"], row["message_variation_name"] or "", name, amount)

    def _add(self, second: int, campaign: str, variant: str, name: str, amount: int | Decimal) -> None:
        for unit, number in (("all", 0), ("day", second // DAY), ("hour", second // HOUR)):
            counts = self.found[campaign, variant, unit, number]
            counts[name] = counts.get(name, 0) + amount

    def first(self, row: Row, name: str, *of: str) -> None:
        """Remember it if nothing earlier of the same is known."""
        known = self.firsts.get((name, *of))
        if known is None or row["time"] < known[0]:
            self.firsts[name, *of] = (row["time"], row["campaign_name"], row["message_variation_name"] or "")

    def take(self, kind: str, row: Row) -> None:
        name = kind.rpartition(".")[2]
        if kind == "users.campaigns.Conversion":
            self._convert(row)
        elif kind == "users.campaigns.EnrollInControl":
            self.count(row, "control")
            self._receive(row)
        elif name == "Open":
            self._engage(row, "open", row["machine_open"] == "true")
            self.first(row, "unique_opens_all", row["dispatch_id"])
        elif name == "Click":
            self._engage(row, "click", bool(row["is_suspected_bot_click"]))
        elif name in PLAIN and kind.startswith("users.messages."):
            self.count(row, PLAIN[name])
            if name == "Send":
                self._receive(row)

    def _engage(self, row: Row, what: str, is_machine: bool) -> None:
        if is_machine:
            self.count(row, f"machine_{what}s")
        else:
            self.count(row, f"{what}s")
            self.first(row, f"unique_{what}s", row["dispatch_id"])

    def _receive(self, row: Row) -> None:
        self.first(row, "recipients", row["campaign_name"], row["user_id"], str(row["time"] // DAY))

    def _convert(self, row: Row) -> None:
        letter = "abcd"[row["conversion_behavior_index"] or 0]
        behaviour = json.loads(row["conversion_behavior"] or "{}")
        self.count(row, f"conversions_{letter}")
        self.count(row, f"conversions_by_send_{letter}", at=behaviour.get("sent_at"))
        if behaviour.get("revenue") is not None:
            self.count(row, f"revenue {behaviour['currency']}", Decimal(behaviour["revenue"]))

    def result(self) -> Counted:
        for (name, *_), (second, campaign, variant) in self.firsts.items():
            self._add(second, campaign, variant, name, 1)
        return {place: {name: number for name, number in each.items() if number} for place, each in self.found.items()}


def recount(rows: Iterable[tuple[str, Row]]) -> Counted:
    """Count rows of export files."""
    pass_ = _Recount()
    for kind, row in rows:
        if row.get("campaign_name"):
            pass_.take(kind, row)
    return pass_.result()
