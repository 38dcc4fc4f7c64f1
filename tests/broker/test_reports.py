"""Reports on Kafka: a fleet counts each send once though a worker is killed, and a door alone tells them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.agents.nodes import free_port, write_workspace
from tests.broker.fleets import KEY, STOP_S_MAX, WAIT_S, Fleet, Provider, fleet
from tests.broker.kafka import Broker
from tests.broker.workers import ROOT, Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

USERS = 120
FILES: dict[str, Any] = {
    "campaigns/hook.yaml": {
        "name": "hook",
        "trigger": {"event": {"name": "like"}},
        "channel": "webhook",
        "control": 10,
        "variants": [{"name": name, "percent": 45, "message": {"body": name}} for name in ("a", "b")],
        "conversions": [{"name": "liked", "event": {"name": "like"}}],
    }
}
HEADERS = {"Authorization": f"Bearer {KEY}"}


async def track(url: str, users: range) -> None:
    """Each of them likes."""
    body = {"events": [{"external_id": f"user-{at}", "name": "like"} for at in users]}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/users/track", json=body, headers=HEADERS) as answer,
    ):
        assert answer.status == 201


async def day_of(url: str) -> dict[str, Any]:
    """Today's item of the data series; empty while nobody answers."""
    path = f"{url}/campaigns/data_series?campaign_id=hook&length=1"
    try:
        async with aiohttp.ClientSession() as session, session.get(path, headers=HEADERS) as answer:
            found: dict[str, Any] = await answer.json()
            return dict(found["data"][0]) if answer.status == 200 else {}
    except aiohttp.ClientError:
        return {}


def numbers(day: dict[str, Any]) -> tuple[int, int, int]:
    """Messages sent, users of the control group, and conversions of both."""
    messages = day["messages"]["webhook"] if day else []
    control = sum(each["unique_recipients"] for each in messages if each["variation_name"] == "control")
    conversions = sum(each["conversions"] for each in messages)
    return sum(each.get("sent", 0) for each in messages), control, conversions


async def told(url: str, want: tuple[int, int]) -> tuple[int, int, int]:
    """What is told once so many entries, and conversions, are counted."""
    found = (0, 0, 0)
    async with asyncio.timeout(WAIT_S):
        while (found[0] + found[1], found[2]) < want:
            await asyncio.sleep(0.2)
            found = numbers(await day_of(url))
    return found


async def test_reports_of_a_fleet_and_of_a_door(broker: Broker, tmp_path: Path) -> None:
    """Entries and conversions are counted once each over a killed worker; a door says the same when no worker lives."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    site = Site(broker, tmp_path)
    async with Provider() as hook:
        own = {"WORKSPACE": str(workspace), "WEBHOOK_URL": hook.url, "HTTP_ALLOW": "127.0.0.0/8"}
        async with fleet(site, **own) as run:
            await track(run.url, range(USERS // 2))
            await told(run.url, (USERS // 2, 0))
            pid = run.worker(1)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await track(run.url, range(USERS // 2, USERS))
            await track(run.url, range(USERS // 2))
            of_fleet = await told(run.url, (USERS, USERS // 2))
    assert of_fleet[0] + of_fleet[1] == USERS
    assert of_fleet[2] == USERS // 2
    port = free_port()
    environment = site.environment("door", HTTP=f"127.0.0.1:{port}", API_KEY=KEY)
    log = tmp_path / "door.log"
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "app.py", "door"], cwd=ROOT, env=environment, stdout=said, stderr=said
        )
    door = Fleet(process, f"http://127.0.0.1:{port}", log, site)
    try:
        await door.says("Door OK")
        assert await told(door.url, (USERS, USERS // 2)) == of_fleet
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, STOP_S_MAX) == 0
