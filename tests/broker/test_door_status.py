"""A door of its own has a status page: it says that it reaches the log, and what it counts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.agents.nodes import free_port
from tests.broker.fleets import KEY, STOP_S_MAX, Fleet
from tests.broker.kafka import Broker
from tests.broker.workers import ROOT, Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


async def test_a_door_says_how_it_does(broker: Broker, tmp_path: Path) -> None:
    """`door` answers `/status` and `/status.json` as itself, takes an event, counts it, and offers no replay."""
    site, port = Site(broker, tmp_path), free_port()
    environment = site.environment("data", HTTP=f"127.0.0.1:{port}", API_KEY=KEY)
    log = tmp_path / "door.log"
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "app.py", "door"], cwd=ROOT, env=environment, stdout=said, stderr=said
        )
    door = Fleet(process, f"http://127.0.0.1:{port}", log, site)
    try:
        report = await door.says("Door OK")
        assert (report["role"], report["can_replay"], report["readers"]) == ("door", False, [])
        body = {"events": [{"external_id": "ann", "name": "like"}]}
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{door.url}/users/track", json=body, headers=headers) as answer,
        ):
            assert answer.status == 201
        assert 'headrace_door_objects_total{array="events"} 1.0' in await door.get("/metrics")
        assert "<title>Status" in await door.get("/status")
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, STOP_S_MAX) == 0
