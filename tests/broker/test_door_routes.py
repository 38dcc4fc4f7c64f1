"""A door of its own, on Kafka, serves what every door serves: the SDK, keys with scopes, and imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.agents.nodes import free_port
from tests.broker.fleets import KEY, STOP_S_MAX, Fleet
from tests.broker.kafka import Broker
from tests.broker.workers import ROOT, Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

APP = "5e1f0c3a-web"
ITEM = {"id": "i1", "type": "event", "name": "viewed"}
BATCH = {"app_id": APP, "device_id": "00000000-0000-4000-8000-000000000001", "items": [ITEM]}


async def test_a_door_alone_serves_the_sdk_keys_and_imports(broker: Broker, tmp_path: Path) -> None:
    """A key made while it runs opens what it may, until it is revoked; pages and files are taken as anywhere."""
    site, port = Site(broker, tmp_path), free_port()
    environment = site.environment("data", HTTP=f"127.0.0.1:{port}", API_KEY=KEY, APP_IDS=APP)
    log = tmp_path / "door.log"

    def command(*words: str) -> Any:  # noqa: ANN401  # JSON
        done = subprocess.run(
            [sys.executable, "app.py", *words, "--json"], cwd=ROOT, env=environment, capture_output=True, check=True
        )
        return json.loads(done.stdout)

    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "app.py", "door"], cwd=ROOT, env=environment, stdout=said, stderr=said
        )
    door = Fleet(process, f"http://127.0.0.1:{port}", log, site)
    try:
        await door.says("Door OK")
        made = await asyncio.to_thread(command, "keys", "create", "--scope", "users.import", "--name", "files")

        async with aiohttp.ClientSession() as session:

            async def post(path: str, data: object, key: str = "") -> int:
                headers = {"Authorization": f"Bearer {key}", "Content-Type": "text/plain" if not key else "text/csv"}
                async with session.post(door.url + path, data=data, headers=headers) as answer:
                    return answer.status

            assert await post("/sdk/v1/track", json.dumps(BATCH)) == 200
            assert await post("/users/import", b"external_id,first_name\na,Ann\n", made["key"]) == 200
            assert await post("/users/track", b"{}", made["key"]) == 403
            assert (await door.get("/sdk/headrace.js")).startswith('"use strict";var headrace=')
            await asyncio.to_thread(command, "keys", "revoke", made["id"])
            assert await post("/users/import", b"external_id,first_name\na,Ann\n", made["key"]) == 401
        listed = await asyncio.to_thread(command, "keys", "list")
        assert [(each["name"], each["revoked"] is not None) for each in listed] == [("files", True)]
        assert 'headrace_door_objects_total{array="sdk"} 1.0' in await door.get("/metrics")
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, STOP_S_MAX) == 0
