"""Links of mails on Kafka: the door answers them and loses nothing while every worker is down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streams.engagement import Claims, TokenKind, sign
from tests.agents.nodes import free_port
from tests.broker.fleets import KEY, STOP_S_MAX, Fleet
from tests.broker.kafka import Broker
from tests.broker.workers import ROOT, WAIT_S_MAX, Site, Worker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

SIGNED_BY = "s" * 32
CLAIMS = Claims("ab" * 16, "welcome", "", "email", "ann", 1_764_000_000_000)


def path(kind: TokenKind, url: str = "") -> str:
    """The path of one link of ann's mail."""
    return f"/t/{kind[0]}/{sign((SIGNED_BY.encode(),), CLAIMS, kind, url)}"


async def answered(door: Fleet) -> None:
    """Ann is told of, opens a mail, follows a link of it and unsubscribes, with nobody but the door there."""
    body = {"attributes": [{"external_id": "ann", "email": "ann@example.com"}]}
    async with aiohttp.ClientSession(headers={"User-Agent": "Thunderbird"}) as session:
        key = {"Authorization": f"Bearer {KEY}"}
        async with session.post(f"{door.url}/users/track", json=body, headers=key) as answer:
            assert answer.status == 201
        async with session.get(door.url + path("open")) as answer:
            assert (answer.status, answer.content_type) == (200, "image/gif")
        click = path("click", "https://shop.example/x")
        async with session.get(door.url + click, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, "https://shop.example/x")
        async with session.get(door.url + click[:-1], allow_redirects=False) as answer:
            assert answer.status == 404
        form = {"List-Unsubscribe": "One-Click"}
        async with session.post(door.url + path("unsubscribe"), data=form) as answer:
            assert answer.status == 200


async def known(worker: Worker) -> dict[str, Any]:
    """What a worker knows of ann, once she has unsubscribed."""
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        try:
            found: Any = await worker.ask("user", external_id="ann")
            if found["attributes"].get("email_subscribe"):
                return dict(found)
        except Exception as error:
            if time.monotonic() > deadline or worker.process.poll() is not None:
                raise AssertionError(worker.errors()) from error
            if not isinstance(error, OSError) and type(error).__name__ != "BadSetting":
                raise
        await asyncio.sleep(0.1)


async def test_links_work_while_every_worker_is_down(broker: Broker, tmp_path: Path) -> None:
    """Open, click and unsubscribe are answered by a door alone, and counted by the first worker that comes."""
    site, port = Site(broker, tmp_path), free_port()
    environment = site.environment("door", HTTP=f"127.0.0.1:{port}", API_KEY=KEY, SIGNING_KEY=SIGNED_BY)
    log = tmp_path / "door.log"
    with log.open("wb") as said:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "app.py", "door"], cwd=ROOT, env=environment, stdout=said, stderr=said
        )
    door = Fleet(process, f"http://127.0.0.1:{port}", log, site)
    try:
        await door.says("Door OK")
        await answered(door)
        worker = Worker(site, "data", SIGNING_KEY=SIGNED_BY)
        found = await known(worker)
        await worker.stop()
    finally:
        process.terminate()
        assert await asyncio.to_thread(process.wait, STOP_S_MAX) == 0

    assert found["attributes"]["email_subscribe"] == "unsubscribed"
    engaged = found["engaged"]["welcome"]
    assert (engaged["opens"], engaged["machine_opens"], engaged["clicks"]) == (1, 0, 1)
