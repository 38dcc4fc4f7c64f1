"""Definitions applied to a running node and to a folder: what changed is told, and what must not change is kept."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from streams import topics
from streams.codec import pack, to_json
from streams.definitions import read_definitions
from streams.errors import BadDefinition
from streams.mailbox import Switch
from streams.records import Output
from tests.agents.nodes import NOW_MS, PARTITIONS, ask, environment, event, process, records, running

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

    assert other["changes"][1]["past"] == "exact at once"
    assert (first["applied"], again["applied"], other["applied"]) == (True, False, True)
    assert (again["version"], again["changes"]) == (first["version"], [])
    assert [(row["change"], row["kind"], row["name"]) for row in other["changes"]] == [
        ("changed", "segment", "fans"),
        ("added", "segment", "new"),
        ("removed", "campaign", "hi"),
    ]
    assert list(user["segments"]) == ["fans", "new"]


async def test_over_existing_users_it_is_built_and_nothing_is_sent(tmp_path: Path) -> None:
    """With users, other definitions are built over them; a campaign on entering sends for none of those found."""
    new = {"name": "new", "filter": {"event": {"name": "like", "at_least": 2}}}
    hello = {**CAMPAIGN, "name": "hello", "trigger": {"segment_entered": "new"}}
    async with running(tmp_path) as node:
        await ask(node, "apply", definitions=wire({"segments/fans.yaml": SEGMENT}))
        await process(node, event("ann"), event("ann"), event("bob"))
        await ask(node, "apply", definitions=wire({"segments/new.yaml": new, "campaigns/hello.yaml": hello}))
        await node.quiesce()
        segments, status = await ask(node, "segments"), await ask(node, "scans")
        await process(node, event("bob"))
        user, sends = await ask(node, "user", external_id="bob"), await ask(node, "sends")
        changes = [msgspec.json.decode(record.value) for _, record in await records(node, "segment-changes")]

    assert segments == {"new": {"entered": 1, "left": 0, "now": 1}}
    assert {row["state"] for row in status} == {"current"}
    assert [row["decided"] for row in status] == [row["users"] for row in status]
    assert list(user["segments"]) == ["new"]
    assert sends == {"hello": {"sent": 1}}
    assert {(row["external_id"], row["segment"], row["change"], row.get("built", False)) for row in changes} == {
        ("ann", "fans", "enter", False),
        ("bob", "fans", "enter", False),
        ("ann", "fans", "leave", True),
        ("bob", "fans", "leave", True),
        ("ann", "new", "enter", True),
        ("bob", "new", "enter", False),
    }


async def test_while_it_is_built_it_says_so(tmp_path: Path) -> None:
    """At one user a second the segment says how many are left, the status that it is building, and explain too."""
    async with running(tmp_path, scan_users_per_s=1) as node:
        await ask(node, "apply", definitions=wire({"segments/fans.yaml": SEGMENT}))
        users = [f"u{at:03}" for at in range(300)]
        await process(node, *(event(user) for user in users))
        other = {**SEGMENT, "filter": {"event": {"name": "like", "within": "1d"}}}
        await ask(node, "apply", definitions=wire({"segments/fans.yaml": other}))
        deadline = asyncio.get_running_loop().time() + 10
        while any(row["state"] == "waiting" for row in await ask(node, "scans")):
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)
        segments, status = await ask(node, "segments"), await ask(node, "scans")
        explained = await ask(node, "explain", external_id="u299", segment="fans")

    assert 0 < segments["fans"]["building"] <= 300
    assert {row["state"] for row in status} == {"building"}
    assert explained["building"]
    assert all(row["switch_offset"] for row in status)


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


@pytest.mark.parametrize("has_earlier", [True, False])
async def test_a_kept_version_that_cannot_be_used_is_repaired(tmp_path: Path, has_earlier: bool) -> None:
    """Over a version without meaning, which partitions were told of, another can be applied, and decides."""
    broken = to_json(read_definitions(FILES)).replace(b'{"name":"like"}', b"null")
    node = Node(load_settings(environment(tmp_path)), ManualClock(NOW_MS))
    await node.connect()
    if has_earlier:
        await node.ask("apply", {"definitions": wire({"segments/fans.yaml": SEGMENT})})
    at = node.workspaces.latest_version + 1
    letters = [Output(topics.MAILBOX.name, partition, None, pack(Switch(at))) for partition in range(PARTITIONS)]
    await node.engine.transport.append([Output(topics.DEFINITIONS.name, 0, None, broken), *letters])
    await node.workspaces.reload()
    with pytest.raises(BadDefinition):
        node.workspaces.of(at)
    repaired = await node.ask("apply", {"definitions": wire(FILES)})
    await node.disconnect()
    async with running(tmp_path) as node:
        await process(node, event("ann"))
        status, segments = await ask(node, "scans"), await ask(node, "segments")

    assert repaired["applied"]
    assert {(row["version"], row["state"]) for row in status} == {(at + 1, "current")}
    assert segments["fans"]["now"] == 1
