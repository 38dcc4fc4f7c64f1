"""The topics of sends, as any consumer of committed records sees them: each message decided once."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from tests.chaos.verifier import Verdict
from tests.chaos.workload import Item, Workload

CAMPAIGNS: Final = {"webhook": ("go", "later"), "email": ("mail",)}
"""Of each channel."""

TOPICS: Final = {channel: f"sends.{channel}" for channel in CAMPAIGNS}


def hold_sends(work: Workload, topics: dict[str, list[dict[str, Any]]], verdict: Verdict) -> None:
    """Of each taken event that a campaign wants there is one send, and no dispatch id stands there twice."""
    for channel, names in CAMPAIGNS.items():
        sends = topics[TOPICS[channel]]
        items = Counter(
            (work.person(send["user"]), send["campaign"], int(send["event_properties"]["n"]))
            for send in sends
            if send["campaign"] in names
        )
        wanted: Counter[Item] = sum((work.wanted(name) for name in names), Counter())
        verdict.compare(f"topic sends.{channel}", items, wanted)
        ids = Counter(send["dispatch_id"] for send in sends)
        verdict.compare(f"topic sends.{channel}: dispatch ids", ids, Counter(set(ids)))
