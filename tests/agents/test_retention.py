"""Retention through a whole node: old chunks go, but none that a restart would still read."""

from pathlib import Path

from agents.retention import trim_once
from config import metrics
from config.clock import ManualClock
from tests.agents.nodes import NOW_MS, PARTITIONS, event, process, running, write_workspace
from tests.agents.test_node import FILES

WEEK_MS = 7 * 86_400_000
READ = ("events", "mailbox", "currents", "sends.log")
EVERY = (*READ, "segment-changes", "dead-letters", "definitions")
LIMITS = "events=7d/10000,currents=7d/1000"


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


async def test_bytes_push_out_what_was_read_and_keep_what_was_not(tmp_path: Path) -> None:
    """Beyond its bytes a topic drops its oldest young records, but none that export still has to write."""
    clock = ManualClock(NOW_MS)
    settings = {"workspace": write_workspace(tmp_path / "workspace", FILES), "retention": LIMITS}
    async with running(tmp_path / "data", clock, **settings) as node:
        log, places = node.engine.transport, [("events", at) for at in range(PARTITIONS)]
        for _ in range(20):
            await process(node, *(event(user, filler="x" * 500) for user in ("a", "b", "c", "d")))
        whole = log.size_bytes("currents", 0)
        assert sum(log.size_bytes(*place) for place in places) > 20_000
        assert await trim_once(node.engine) > 0
        for place in places:
            assert 0 < log.size_bytes(*place) <= 10_000 // PARTITIONS
            assert (await log.starts([place]))[place] > 0
        assert log.size_bytes("currents", 0) == whole > 1_000 // PARTITIONS  # no file holds any of them yet
        assert metrics.LOG_BYTES.labels("currents")._value.get() >= whole
        unread = metrics.LIMIT_HITS.labels("retention_bytes_unread")
        assert unread._value.get() > 0
        assert sum(log.size_bytes("mailbox", at) for at in range(PARTITIONS)) > 20_000  # has room
    async with running(tmp_path / "data", clock, **settings) as node:  # sizes are counted on after a restart
        assert node.engine.transport.size_bytes("currents", 0) == whole
        await process(node, event("a"))
        assert node.queries.totals()["custom_events"] == 81
