"""The demo on Kafka as a user runs it, with workers and their supervisor killed, beside an independent model."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from config.workspace import DEMO_FOLDER
from tests.agents.test_demo import export_rows, finish
from tests.broker.kafka import Broker
from tests.broker.workers import DISPATCH, ROOT, WAIT_S_MAX, Site
from tests.oracle.cdnow import cdnow_path, read_purchases, read_workspace, summarize
from tests.processes import children_of

pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]

KILLS = ("worker", "supervisor", "worker", "supervisor", "worker")
PAUSE_S = (1.0, 4.0)
SOME_LINES = None if os.environ.get("KILL_SEEDS") else 6_001
"""What one worker gets of the purchases: all of them in the long proof, as in `test_delivery_kills.py`."""


def start_demo(site: Site, workers: int, packages: Path) -> subprocess.Popen[bytes]:
    """Start `demo --once` on the broker; a package in `packages` goes before the installed one."""
    own = {"WORKERS": str(workers), "WORKSPACE": "", "OUTBOX": "", "EXPORTS": "", "PARTITIONS": ""}
    environment = site.environment("data", **own) | {"PYTHONPATH": str(packages)}
    command = [sys.executable, "app.py", "demo", "--once"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of its supervised workers."""
    return [pid for pid, command in children_of(process.pid).items() if "--supervised" in command]


async def run_and_kill(site: Site, workers: int, packages: Path, dice: random.Random) -> subprocess.Popen[bytes]:
    """Run the demo, with kill -9 at random moments, until only the end of it is left to wait for."""
    process = start_demo(site, workers, packages)
    for target in KILLS:
        await asyncio.sleep(dice.uniform(*PAUSE_S))
        if target == "supervisor":
            process.send_signal(signal.SIGKILL)
            process.communicate()
            process = start_demo(site, workers, packages)
            continue
        async with asyncio.timeout(WAIT_S_MAX):
            while not (found := workers_of(process)):
                assert process.poll() is None, process.communicate()
                await asyncio.sleep(0.05)
        os.kill(dice.choice(found), signal.SIGKILL)
    return process


@pytest.mark.parametrize(("workers", "lines"), [(2, None), (1, SOME_LINES)], ids=["two", "one"])
async def test_the_demo_equals_the_model_after_five_kills(
    broker: Broker, tmp_path: Path, workers: int, lines: int | None
) -> None:
    """The line equals a brute force over the file, and every mail, webhook and export row is there once."""
    data = tmp_path / "packages" / "lifetimes" / "datasets" / cdnow_path().name
    data.parent.mkdir(parents=True)
    (data.parents[1] / "__init__.py").touch()
    data.write_bytes(b"".join(cdnow_path().read_bytes().splitlines(keepends=True)[:lines]))
    wanted = summarize(read_workspace(DEMO_FOLDER), read_purchases(data))
    site = Site(broker, tmp_path, more=(("SESSION_S", "6"),))

    process = await run_and_kill(site, workers, tmp_path / "packages", random.Random(workers))
    line = await asyncio.to_thread(finish, process)

    assert line == wanted
    rows = export_rows(tmp_path / "data")
    assert len(rows) == len({row["id"] for row in rows}) == line["export"]["rows"]
    for name, kind in (("email.mbox", "email"), ("webhook.jsonl", "webhook")):
        content = (tmp_path / "data" / "outbox" / name).read_bytes()
        in_file = Counter((a or b).decode() for a, b in DISPATCH.findall(content))
        told = [row["dispatch_id"] for row in rows if row["type"] == f"event_type=users.messages.{kind}.Send"]
        assert in_file == Counter(told)
        assert len(in_file) == len(told) == len(set(told))
