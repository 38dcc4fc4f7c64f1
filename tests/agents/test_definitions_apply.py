"""Definitions applied to a running node and to a folder: what changed is told, and what must not change is kept."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from streams.definitions import read_definitions
from streams.errors import BadDefinition
from tests.agents.nodes import NOW_MS, ask, environment, event, process, running

SEGMENT = {"name": "fans", "filter": {"event": {"name": "like"}}}
CAMPAIGN = {"name": "hi", "trigger": {"segment_entered": "fans"}, "channel": "log", "message": {"text": "hi"}}
FILES: dict[str, Any] = {"segments/fans.yaml": SEGMENT, "campaigns/hi.yaml": CAMPAIGN}


def wire(files: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
    """Definitions as the control socket carries them."""
    return msgspec.to_builtins(read_definitions(files))


async def test_an_apply_says_what_changed_and_is_in_force(tmp_path: Path) -> None:
    """A node without users takes new definitions at once; the same ones again change nothing."""
    changed = {
        **FILES,
        "segments/fans.yaml": {**SEGMENT, "description": "x"},
        "segments/new.yaml": {**SEGMENT, "name": "new"},
    }
    del changed["campaigns/hi.yaml"]
    async with running(tmp_path) as node:
        first = await ask(node, "apply", definitions=wire(FILES))
        again = await ask(node, "apply", definitions=wire(FILES))
        other = await ask(node, "apply", definitions=wire(changed))
        await process(node, event("ann"))
        user = await ask(node, "user", external_id="ann")

    assert (first["applied"], again["applied"], other["applied"]) == (True, False, True)
    assert (again["version"], again["changes"]) == (first["version"], [])
    assert [(row["change"], row["kind"], row["name"]) for row in other["changes"]] == [
        ("changed", "segment", "fans"),
        ("added", "segment", "new"),
        ("removed", "campaign", "hi"),
    ]
    assert list(user["segments"]) == ["fans", "new"]


async def test_over_existing_users_it_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    """With users, other definitions are refused in words that name the way out, and the old ones stay in force."""
    async with running(tmp_path) as node:
        await ask(node, "apply", definitions=wire(FILES))
        await process(node, event("ann"))
        with pytest.raises(BadDefinition, match="use a new HEADRACE_DATA, or the old workspace"):
            await ask(node, "apply", definitions=wire({"segments/fans.yaml": SEGMENT}))
        again = await ask(node, "apply", definitions=wire(FILES))

    assert (again["applied"], again["changes"]) == (False, [])


async def test_a_paused_campaign_stays_paused(tmp_path: Path) -> None:
    """Applying definitions never lets a paused campaign send; one that is gone takes its pause along."""
    changed = {**FILES, "segments/fans.yaml": {**SEGMENT, "description": "x"}}
    async with running(tmp_path) as node:
        await ask(node, "apply", definitions=wire(FILES))
        await ask(node, "pause", campaign="hi", paused=True)
        answer = await ask(node, "apply", definitions=wire(changed))
        await process(node, event("ann"))
        sends = await ask(node, "sends")
        await ask(node, "pause", campaign="*", paused=True)

    assert answer["paused"] == ["hi"]
    assert sends["hi"].get("sent", 0) == 0


async def test_what_was_applied_to_a_folder_runs(tmp_path: Path) -> None:
    """Applied while nothing runs, the definitions are in force when a node starts on the folder."""
    node = Node(load_settings(environment(tmp_path)), ManualClock(NOW_MS))
    await node.connect()
    assert (await node.ask("apply", {"definitions": wire(FILES)}))["applied"]
    await node.disconnect()
    async with running(tmp_path) as node:
        await process(node, event("ann"))
        assert (await ask(node, "segments"))["fans"]["now"] == 1


async def test_bad_definitions_are_refused_with_every_fault(tmp_path: Path) -> None:
    """What `definitions check` would refuse, a node refuses as well, and says the same."""
    files = {"segments/a.yaml": {"name": "a", "filter": {"segment": "gone"}}}
    async with running(tmp_path) as node:
        with pytest.raises(BadDefinition, match=r"segments/a: no segment 'gone'"):
            await ask(node, "apply", definitions=wire(files))
