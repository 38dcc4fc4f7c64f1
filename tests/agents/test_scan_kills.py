"""A change of definitions over existing users, killed with -9 in the middle: it ends as if nobody had killed it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from streams import topics
from streams.definitions import read_definitions
from streams.effects import Effect
from streams.fold import Fold
from streams.outputs import to_outputs
from streams.positions import Position
from streams.profiles.row import decode_row
from tables.log import Log
from tables.partition import UsersView
from tables.store import Store
from tests.agents.nodes import NOW_MS, PARTITIONS, ask, environment, event, process, running
from tests.driver import MemoryRows, fold_record

ROOT = Path(__file__).parents[2]
OLD = {"segments/old.yaml": {"name": "old", "filter": {"event": {"name": "like", "at_least": 2}}}}
NEW = {
    "segments/some.yaml": {"name": "some", "filter": {"event": {"name": "like", "at_least": 2, "within": "700d"}}},
    "segments/none.yaml": {"name": "none", "filter": {"event": {"name": "like", "exactly": 0}}},
}
USERS = 600


def wire(files: dict[str, Any]) -> Any:  # noqa: ANN401  # JSON
    """Definitions as the control socket carries them."""
    return msgspec.to_builtins(read_definitions(files))


def run_once(data: Path, *plan: str) -> int:
    """A process that runs the node to the end, or dies as planned; its return code."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environ = {**rest, **environment(data, scan_users_per_s=5_000)}
    command = [sys.executable, "-m", "tests.agents.run_once", *plan]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=False, timeout=60).returncode


def plain_fold(data: Path) -> tuple[dict[int, dict[str, bytes]], dict[int, list[Any]], dict[int, Position]]:
    """The rows, the segment changes and the positions that the mailboxes' records give in memory."""
    node = Node(load_settings(environment(data)), ManualClock(NOW_MS))
    rows, changes, positions = {}, {}, {}
    log, workspaces = Log(node.store), node.workspaces

    asyncio.run(workspaces.load())
    for partition in range(PARTITIONS):
        memory, position = MemoryRows(), Position(version=workspaces.first_version)
        fold = Fold(memory, position, "wall", workspaces.of)
        offset = 0
        while more := log.read(topics.MAILBOX.name, partition, offset):
            for record in more:
                fold_record(fold, record)
            offset = more[-1].offset + 1
        effects: list[Effect] = fold.take_effects()
        outputs = [one for one in to_outputs(effects, partition) if one.topic == topics.SEGMENT_CHANGES.name]
        rows[partition], positions[partition] = memory.stored, position
        changes[partition] = [(one.key, one.value) for one in outputs]
    node.close()
    return rows, changes, positions


@pytest.mark.parametrize("kills", [("scan:9:after", "write:4:before"), ("scan:2:before", "scan:12:after")])
async def test_a_scan_that_is_killed_twice_ends_as_the_plain_fold(tmp_path: Path, kills: tuple[str, str]) -> None:
    """After two kills rows and segment changes are those of folding the log once, and every user is decided."""
    async with running(tmp_path) as node:
        await ask(node, "apply", definitions=wire(OLD))
        await process(node, *(event(f"u{at:04}") for at in range(USERS) for _ in range(1 + at % 3)))
    node = Node(load_settings(environment(tmp_path)), ManualClock(NOW_MS))
    await node.connect()
    await node.ask("apply", {"definitions": wire(NEW)})
    await node.disconnect()

    for kill in kills:
        assert run_once(tmp_path, kill) == -signal.SIGKILL
    assert run_once(tmp_path) == 0

    rows, changes, positions = await asyncio.to_thread(plain_fold, tmp_path)
    store = Store(tmp_path / "db")
    view, log, members = UsersView(store), Log(store), []
    for partition in range(PARTITIONS):
        stored = dict(view.raw(partition))
        assert stored == rows[partition]
        assert view.position(partition) == positions[partition]
        found = list(log.read(topics.SEGMENT_CHANGES.name, partition, 0, 10_000))
        assert [(record.key, record.value) for record in found] == changes[partition]
        members += [user for user, row in stored.items() if "some" in decode_row(row).memberships]
        scan = positions[partition].scan
        assert scan is not None
        assert scan.ended_ms is not None
        assert scan.rows == len(stored)
    assert sorted(members) == [f"u{at:04}" for at in range(USERS) if at % 3]
    store.close()
