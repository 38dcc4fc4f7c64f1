"""Anonymous users become known in a real node: over partitions, through delivery, exports, commands and restarts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro

from agents.node import Node
from config.clock import ManualClock
from streams.codec import partition_of
from streams.exports import decode_row
from streams.records import Output
from tests.agents.nodes import NOW_MS, PARTITIONS, ask, event, records, running, write_workspace

DEVICE = "d2"  # its user's key and `ann` lie in different ones of two partitions
FILES: dict[str, Any] = {
    "segments/fans.yaml": {"name": "fans", "filter": {"event": {"name": "like", "at_least": 2, "within": "1h"}}},
    "campaigns/hi.yaml": {
        "name": "hi",
        "trigger": {"event": {"name": "like"}},
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "hi", "text": "<{{ ${user_id} }}>"},
    },
}


async def _put(node: Node, *values: dict[str, Any]) -> None:
    """Put records into the events topic, keyed as their user is, and wait until all is done."""
    outputs = []
    for value in values:
        is_known = value["type"] != "identify" and "external_id" in value
        key = (value["external_id"] if is_known else f"device:{value['device_id']}").encode()
        outputs.append(Output("events", partition_of(key, PARTITIONS), key, json.dumps(value).encode()))
    await node.engine.transport.append(outputs)
    await node.quiesce()


def _anonymous(kind: str, **more: object) -> dict[str, Any]:
    return {"type": kind, "device_id": DEVICE, **more}


async def test_a_device_becomes_a_known_user(tmp_path: Path) -> None:
    """Over two partitions and a restart: counts, segments, mails, files and answers are those of one person."""
    workspace, clock = write_workspace(tmp_path / "workspace", FILES), ManualClock(NOW_MS)
    assert len({partition_of(key, PARTITIONS) for key in (b"device:d2", b"ann")}) == 2
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await _put(node, _anonymous("attributes", email="ann@example.com"), _anonymous("event", name="like"))
        await _put(node, event("ann"), _anonymous("identify", external_id="ann"))
        assert node.queries.segments()["fans"]["now"] == 1
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await _put(node, _anonymous("event", name="view"))
        known, left = (
            await ask(node, "user", external_id="ann"),
            await ask(node, "user", external_id=f"device:{DEVICE}"),
        )
        assert (known["events"]["like"]["count"], known["events"]["view"]["count"]) == (2, 1)
        assert (known["attributes"]["email"], list(known["segments"])) == ("ann@example.com", ["fans"])
        assert known["devices"] == [DEVICE]
        assert (left["external_id"], left["merged_into"], left["events"]) == (None, "ann", {})
        assert known["open_dispatches"] == 0
        assert node.queries.totals()["users"] == 1
        clock.advance(3_600_001)
        await node.quiesce()
        await node.export.flush()
        rows = [decode_row(record.value) for _, record in await records(node, "currents")]
    mails = (tmp_path / "data" / "outbox" / "email.mbox").read_text("utf-8")
    assert mails.count("ann@example.com") >= 1
    assert "<>" in mails
    assert "device:" not in mails
    exported: list[str] = []
    for path in (tmp_path / "data" / "exports").rglob("*.avro"):
        found: Any = fastavro.reader(io.BytesIO(path.read_bytes()))
        exported += [row["id"] for row in found]
    assert sorted(exported) == sorted(row["id"] for row in rows)
    orphans = [row for row in rows if row["event_type"] == "users.UserOrphan"]
    assert [(row["device_id"], row["orphaned_by_id"]) for row in orphans] == [(DEVICE, known["user_id"])]
