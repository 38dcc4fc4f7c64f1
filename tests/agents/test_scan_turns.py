"""Many switches during a scan: what rows have to catch up with is bounded, and the newest comes into force."""

from pathlib import Path
from typing import Any

import pytest

from agents import users
from tests.agents.nodes import ask, event, process, running
from tests.agents.test_definitions_apply import CAMPAIGN, SEGMENT, wire


async def test_further_switches_wait_for_the_end_of_the_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two switches, a partition keeps no more, and goes over to the newest when the scan has ended."""
    monkeypatch.setattr(users, "TURNS_MAX", 2)
    files: dict[str, Any] = {"segments/fans.yaml": SEGMENT, "campaigns/hi.yaml": CAMPAIGN}
    changed = {**files, "segments/fans.yaml": {**SEGMENT, "filter": {"event": {"name": "like", "at_least": 2}}}}
    async with running(tmp_path, scan_users_per_s=150) as node:
        await ask(node, "apply", definitions=wire(files))
        await process(node, *(event(f"u{at:03}") for at in range(200)), event("u000"))
        await ask(node, "apply", definitions=wire(changed))
        most = 0
        for number in range(9):
            await ask(node, "pause", campaign="hi", paused=number % 2 == 0)
            scans = [scan for fold in node.users.folds.values() if (scan := fold.position.open_scan) is not None]
            most = max([most, *(len(scan.turns) for scan in scans)])
        await node.quiesce()
        status, segments = await ask(node, "scans"), await ask(node, "segments")

    assert most <= 2
    assert {(row["state"], row["version"]) for row in status} == {("current", node.workspaces.latest_version)}
    assert segments["fans"]["now"] == 1
