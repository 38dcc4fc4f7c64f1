"""What a test that waited in vain is told: without it a rare stall leaves nothing to look at."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.broker import stalled
from tests.broker.fleets import Fleet
from tests.broker.kafka import Broker
from tests.broker.stalled import STACKS, known_of, patience
from tests.broker.workers import Site

WAITS = """
import asyncio, gc, sys
async def waits_for_ever():
    await asyncio.Event().wait()
async def main():
    task = asyncio.create_task(waits_for_ever(), name="the-silent-one")
    gc.freeze()
    await asyncio.sleep(0)
    print("runs", flush=True)
    await task
asyncio.run(main())
"""


def nowhere(folder: Path) -> Site:
    """A site on a broker that does not answer."""
    return Site(Broker.at("127.0.0.1:1"), folder)


def test_a_process_says_what_its_tasks_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SIGUSR1 a process names each task and the lines at which it stands, those of frozen objects too."""
    monkeypatch.setattr(stalled, "ASK_S_MAX", 0.1)
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", WAITS],
            env={**os.environ, "PYTHONPATH": str(STACKS)},
            stdout=subprocess.PIPE,
            stderr=said,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"runs\n"
        found = known_of("127.0.0.1:1", "nobody", [log], [process.pid])
    finally:
        process.kill()
        process.communicate()

    assert "task the-silent-one:" in found
    assert "<string>:4 waits_for_ever" in found
    assert "---- threads" in found
    assert "it does not answer" in found


async def test_a_fleet_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    """The failure comes at once, with its exit code and last words, such as that a port was taken."""
    log = tmp_path / "log"
    with log.open("wb") as said:
        ended = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "-c", "import sys; sys.exit('choose another port')"], stderr=said
        )
    ended.wait()
    with pytest.raises(AssertionError, match="it ended with 1\nchoose another port"):
        await Fleet(ended, "http://127.0.0.1:1", log, nowhere(tmp_path)).says("Partitions OK all")


async def test_patience_that_ends_says_what_is_known() -> None:
    """What is known comes with the failure, behind what was waited for."""
    with pytest.raises(AssertionError, match="the moon: not within 0 s\nclouds"):
        async with patience(0.01, "the moon", lambda: "clouds"):
            await asyncio.sleep(10)
