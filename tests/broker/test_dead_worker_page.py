"""The status page of a real fleet in Chromium, while one of its workers is dead and a provider hangs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.agents.nodes import write_workspace
from tests.broker.fleets import WAIT_S, Provider, fleet
from tests.broker.kafka import Broker
from tests.broker.workers import Site, arrivals, produce
from tests.browser.chromium import browser, chromium
from tests.browser.screens import MIXED, opened, says_on_every_screen
from tests.browser.test_status_page import FILES

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(240),
]

USERS = 60


async def test_the_first_screen_names_a_killed_worker_and_a_hanging_provider(broker: Broker, tmp_path: Path) -> None:
    """One of two workers dies by kill -9, a provider hangs: the first screen says both, since when, at any width."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    site = Site(broker, tmp_path)
    async with Provider() as hook:
        own = {"WORKSPACE": str(workspace), "WEBHOOK_URL": hook.url, "HTTP_ALLOW": "127.0.0.0/8", "CANARY_S": "1"}
        async with fleet(site, **own) as running:
            likes = [(user, {"type": "event", "name": "like", "external_id": user}) for user, _ in arrivals(USERS)]
            produce(site, likes)
            await running.says("Provider of webhook OK")
            async with asyncio.timeout(WAIT_S):
                while hook.answered < USERS:  # noqa: ASYNC110 - another process sends
                    await asyncio.sleep(0.1)
            hook.hangs = True
            async with running.dead(1), browser(tmp_path / "profile") as page:
                await running.says("Worker 1 STOP is dead; ended by signal 9")
                await running.says("Partitions OK all 4 are open")
                produce(site, likes)
                report = await running.says("Provider of webhook", "no answer for")
                since = {each["component"]: each["since_ms"] for each in report["components"]}
                assert report["at_ms"] - since["Worker 1"] >= report["at_ms"] - since["Provider of webhook"] > 0
                await opened(page, running.url)
                words = ("Worker 1", "is dead; ended by signal 9", "Provider of webhook", "no answer for", "since ")
                await says_on_every_screen(page, words, shots, MIXED)
