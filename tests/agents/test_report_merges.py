"""Reports of people who were devices first: one dispatch is opened before and behind the merge, in two partitions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.node import Node
from agents.signing import signing_keys
from config.clock import ManualClock
from streams.codec import partition_of
from streams.engagement import Claims, sign
from streams.records import Output
from tests.agents.nodes import NOW_MS, PARTITIONS, ask, running, write_workspace
from tests.oracle.reports import recount, rows_of_files
from tests.report_tables import counted

DEVICE = "device:d2"  # in another of two partitions than `ann`
FILES: dict[str, Any] = {
    "campaigns/hi.yaml": {
        "name": "hi",
        "trigger": {"event": {"name": "like"}},
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "hi", "text": "hi"},
    }
}


async def _put(node: Node, *values: dict[str, Any]) -> None:
    """Put records about the device's user into the events topic, and wait until all is done."""
    outputs = [
        Output("events", partition_of(DEVICE.encode(), PARTITIONS), DEVICE.encode(), json.dumps(value).encode())
        for value in values
    ]
    await node.engine.transport.append(outputs)
    await node.quiesce()


async def test_a_mail_that_is_opened_before_and_behind_a_merge_is_opened_once(tmp_path: Path) -> None:
    """Opens and clicks of a device's mail are unique by its dispatch, whichever partition counts them: as recounted."""
    assert partition_of(DEVICE.encode(), PARTITIONS) != partition_of(b"ann", PARTITIONS)
    workspace, clock = write_workspace(tmp_path / "workspace", FILES), ManualClock(NOW_MS)
    of_device = {"device_id": "d2"}
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await _put(node, {"type": "attributes", "email": "ann@example.com", **of_device})
        await _put(node, {"type": "event", "name": "like", **of_device})
        (mail,) = await ask(node, "dispatches")
        claims = Claims(mail["dispatch_id"], "hi", "", "email", DEVICE, NOW_MS)
        keys = signing_keys(node.settings)
        hits: list[dict[str, Any]] = [
            {"type": "engagement", "kind": "open", "token": sign(keys, claims, "open")},
            {"type": "engagement", "kind": "click", "token": sign(keys, claims, "click", "https://shop.example")},
        ]
        await _put(node, *hits)
        await _put(node, {"type": "identify", "external_id": "ann", **of_device})
        await _put(node, *hits)
        await node.export.flush()
        found = counted(node.store, range(PARTITIONS))
    assert found == recount(rows_of_files(tmp_path / "data/exports"))
    totals = found["hi", "", "all", 0]
    assert (totals["opens"], totals["unique_opens"], totals["clicks"], totals["unique_clicks"]) == (2, 1, 2, 1)
