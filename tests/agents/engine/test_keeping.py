"""Keeping positions: of what was read and done alone, and only where a stored position does not move by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agents.engine.engine import Engine
from agents.engine.slices import Slice
from agents.node import Node
from config.clock import ManualClock
from config.settings import load_settings
from tables.store import Store
from tests.agents.engine.still import Still
from tests.agents.nodes import NOW_MS, PARTITIONS, event, process, running, until
from tests.channels.sinks.files import rows_in

USERS = [f"u{number}" for number in range(8)]


def stored(node: Node, reader: str) -> list[int]:
    """Where a reader of currents would be opened, by partition."""
    agent = next(agent for agent in node.engine.agents if agent.name == reader)
    return [agent.position("currents", at) for at in range(PARTITIONS)]


async def keep(node: Node) -> None:
    """Have everybody keep positions, and wait until that is done."""
    await node.engine.keep_positions({})
    await until(lambda: node.engine.idle)


async def test_reports_keep_what_says_nothing_to_them(tmp_path: Path) -> None:
    """Records that reports pass without a commit are read no more after a restart, once their position was kept."""
    async with running(tmp_path / "data") as node:
        await process(node, *(event(user) for user in USERS))
        ends = await node.log.ends([("currents", at) for at in range(PARTITIONS)])
        before = stored(node, "reports")
        await keep(node)
        kept = stored(node, "reports")
    async with running(tmp_path / "data") as node:
        opened = stored(node, "reports")

    assert before == [0] * PARTITIONS
    assert kept == opened == list(ends.values())


async def test_what_waits_for_its_file_is_read_again(tmp_path: Path) -> None:
    """Export keeps no position beyond a record that lies in no file yet: each record is in exactly one in the end."""
    async with running(tmp_path / "data") as node:
        await process(node, *(event(user) for user in USERS))
        await keep(node)
        assert node.export.waiting
        assert stored(node, "export") == [0] * PARTITIONS
    async with running(tmp_path / "data") as node:
        await node.quiesce()
        await node.export.flush()
        await keep(node)
        ends = await node.log.ends([("currents", at) for at in range(PARTITIONS)])
        assert stored(node, "export") == list(ends.values())
    rows = [row["id"] for path in (tmp_path / "data/exports").glob("*/*/*.avro") for row in rows_in(path)]

    assert len(rows) == len(set(rows)) >= len(USERS)


async def test_a_position_that_moves_by_itself_is_left_alone(tmp_path: Path) -> None:
    """Whose stored position is another than at the last look is not asked to keep it; at the next look it is."""
    async with running(tmp_path / "data") as node:
        known = await node.engine.keep_positions({})
        moved = {key: at - 1 for key, at in known.items()}
        await process(node, *(event(user) for user in USERS))
        known = await node.engine.keep_positions(moved)
        await until(lambda: node.engine.idle)
        assert stored(node, "reports") == [0] * PARTITIONS
        await node.engine.keep_positions(known)
        await until(lambda: node.engine.idle)

        assert min(stored(node, "reports")) > 0


class Keeper(Still):
    """An agent that remembers what it was asked to keep."""

    name = "keeper"

    def __init__(self) -> None:
        self.kept: list[int] = []

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        self.kept.append(finished)

    async def handle(self, piece: Slice) -> None:
        raise AssertionError("there are no records")


async def test_a_partition_that_came_back_keeps_what_is_true_now(tmp_path: Path) -> None:
    """A request that waited while the partition was elsewhere keeps the position of its return, and none before it."""
    store, agent = Store(tmp_path / "db"), Keeper()
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_PARTITIONS": "1"})
    engine = Engine(settings, ManualClock(NOW_MS), store, tmp_path / "faust")
    engine.register(agent)
    (lanes,), asked = engine._lanes, Slice("events", 0, [], 9, agent.name)
    lanes.give(asked)
    await until(lambda: lanes.idle)
    assert not agent.kept

    engine.slices.assign(("events", 0), 5, agent.name)
    engine.held.add(0)
    lanes.give(asked)
    await until(lambda: lanes.idle)
    await lanes.close()
    await asyncio.sleep(0)
    store.close()

    assert agent.kept == [5]
