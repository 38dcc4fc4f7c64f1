"""Retention through a whole node: old chunks go, but none that a restart would still read."""

from pathlib import Path

from agents.retention import trim_once
from config.clock import ManualClock
from tests.agents.nodes import NOW_MS, PARTITIONS, event, process, running, write_workspace
from tests.agents.test_node import FILES

WEEK_MS = 7 * 86_400_000
READ = ("events", "mailbox", "currents", "sends.log")
EVERY = (*READ, "segment-changes", "dead-letters", "definitions")


async def test_what_is_old_and_read_goes_and_nothing_else(tmp_path: Path) -> None:
    """After a week chunks go that every reader has passed; what export has not written stays until it has."""
    clock = ManualClock(NOW_MS)
    workspace = write_workspace(tmp_path / "workspace", FILES)
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        log, users = node.engine.transport, [f"u{at}" for at in range(8)]

        async def starts() -> dict[str, list[int]]:
            return {
                topic: list((await log.starts([(topic, at) for at in range(PARTITIONS)])).values()) for topic in EVERY
            }

        for _ in range(4):
            await process(node, *(event(user) for user in users), b"no json")
            clock.advance(2_000)  # they leave, and come again with the next event
        assert await trim_once(node.engine) == 0, "all is young"
        clock.advance(WEEK_MS + 1)
        assert await trim_once(node.engine) > 0

        first = await starts()
        assert min(first["events"] + first["mailbox"] + first["segment-changes"]) > 0
        assert first["dead-letters"][0] > 0
        assert first["definitions"] == [0] * PARTITIONS  # compacted, never cut
        assert first["currents"] == [0] * PARTITIONS  # no file holds any of them yet
        for topic in READ:
            kept = [node.engine.kept_from(topic, at) for at in range(PARTITIONS)]
            assert all(start <= (kept_from or 0) for start, kept_from in zip(first[topic], kept, strict=True)), topic

        await node.export.flush()
        await trim_once(node.engine)
        assert min((await starts())["currents"]) > 0
        assert await trim_once(node.engine) == 0
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await process(node, *(event(user) for user in users))
        assert node.queries.totals()["custom_events"] == 5 * len(users)
