"""A partition that is given up while a slice of it is handled: its next owner takes the slice, and nobody ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from streams.errors import Revoked
from streams.records import Output
from tables.store import Batch
from tests.agents.nodes import ask, event, process, running, send, until

USERS = [f"user-{at}" for at in range(30)]


@pytest.mark.parametrize("is_full", [True, False])
async def test_a_slice_of_a_partition_that_is_given_up_ends_nobody(
    tmp_path: Path, is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given up behind a commit, in the middle of a slice or at its end: the worker goes on, and is asked in vain."""
    if is_full:
        monkeypatch.setattr("agents.users.ROWS_MAX", 2)
    async with running(tmp_path / "data") as node:
        await process(node, *(event(user) for user in USERS))
        real, gone = node.engine.transport.commit, list[int]()

        async def commit(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
            await real(partition, batch, outputs)
            if not gone and any(output.topic == "currents" for output in outputs):
                gone.append(partition)
                await node.engine._close(partition)

        monkeypatch.setattr(node.engine.transport, "commit", commit)
        await send(node, *(event(user) for user in USERS))
        await until(lambda: bool(gone) and node.engine._landed)
        assert node.engine.failure is not None
        assert not node.engine.failure.done()
        assert (await ask(node, "progress"))["partitions"] == [at for at in (0, 1) if at != gone[0]]


async def test_a_dispatch_of_a_partition_that_is_given_up_waits_for_nothing(tmp_path: Path) -> None:
    """Who hands a change to the writer after the close, or asks for the writer, is told at once."""
    async with running(tmp_path / "data") as node:
        writer = node.delivery._writers[0]
        await node.engine._close(0)
        for lane in ("transactional", "bulk"):
            with pytest.raises(Revoked):
                async with asyncio.timeout(5):
                    await writer.change(lambda batch, outputs: None, durable=True, lane=lane)
        with pytest.raises(Revoked):
            node.delivery._opened(0)
