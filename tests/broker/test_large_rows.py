"""What a page may send makes no row that a real broker refuses: it would end each worker that takes the row up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streams.profiles.fields import TEXT_CHARS_MAX
from tests.broker.kafka import Broker
from tests.broker.workers import Site, node_on, produce, quiet, remembered

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

Sent = list[tuple[str, dict[str, Any]]]


def all_that_fits(user: str, who: dict[str, Any], mark: str) -> Sent:
    """Events and attributes with the longest names, and values, in the widest letters."""
    wide = "\U0001f40c"
    found: Sent = []
    for number in range(300):
        name = f"{mark}{number}".ljust(TEXT_CHARS_MAX, wide)
        found.append((user, {"type": "attributes", **who, name: wide * TEXT_CHARS_MAX}))
        found.append((user, {"type": "event", **who, "name": name}))
        found.append((user, {"type": "purchase", **who, "product_id": name, "currency": "USD", "price": 1}))
    return found


async def test_no_row_ends_a_worker(broker: Broker, tmp_path: Path) -> None:
    """Values that together outgrow a record, and two full rows that are one person's, leave the worker at its work."""
    site, known, device = Site(broker, tmp_path), {"external_id": "ann"}, {"device_id": "device-one"}
    values = [("ann", {"type": "attributes", **known, f"a{number}": "x" * 240_000}) for number in range(28)]
    key = "device:device-one"
    async with node_on(site) as node:
        produce(site, values)
        produce(site, all_that_fits("ann", known, "k"))
        produce(site, all_that_fits(key, device, "d"))
        await quiet(node)
        produce(site, [(key, {"type": "identify", **known, **device})])
        await quiet(node)
        produce(site, [("ann", {"type": "event", **known, "name": "k1".ljust(TEXT_CHARS_MAX, "\U0001f40c")})])
        await quiet(node)

    rows = await remembered(site)
    _, _, events, _ = rows["ann"]
    assert 200 < len(events) < 300
    assert max(events.values()) == 2
