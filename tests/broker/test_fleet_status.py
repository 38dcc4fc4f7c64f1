"""A fleet's status and metrics: one answer for all workers, which names the one that is dead."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.agents.nodes import free_port
from tests.broker.kafka import Broker
from tests.broker.test_lag import by_the_tool
from tests.broker.workers import ROOT, Site, arrivals, produce, purchases
from tests.processes import children_of

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

WAIT_S = 60.0
EVENTS = 260


async def page(url: str) -> Any:  # noqa: ANN401 - a page may be JSON or text
    """What a page answers, JSON or text; nothing while nobody does."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return await (answer.json() if url.endswith("json") else answer.text())
    except aiohttp.ClientError:
        return None


async def components(url: str, *words: str) -> dict[str, Any]:
    """The status once a component's line holds all these words."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await page(f"{url}/status.json") or {"components": []}
            lines = [" ".join((each["component"], each["state"], each["why"])) for each in found["components"]]
            if any(all(word in line for word in words) for line in lines):
                return dict(found)
            await asyncio.sleep(0.1)


async def test_a_fleet_answers_for_all_its_workers(broker: Broker, tmp_path: Path) -> None:
    """`/metrics` has every worker's series, its lag is Kafka's own, and `/status` names a worker that was killed."""
    site, port = Site(broker, tmp_path), free_port(3)
    url = f"http://127.0.0.1:{port}"
    environment = site.environment("data", WORKERS="2", HTTP=f"127.0.0.1:{port}", API_KEY="a-key", SESSION_S="6")
    with (tmp_path / "run.log").open("wb") as log:
        command = [sys.executable, "app.py", "run"]
        fleet = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
    try:
        await components(url, "Partitions OK all 4 are open")
        produce(site, [*arrivals(60), *purchases(EVENTS - 60, 60, seed=3)])
        async with asyncio.timeout(WAIT_S):
            while not is_quiet(str(await page(f"{url}/metrics"))):  # noqa: ASYNC110 - another process is what changes
                await asyncio.sleep(0.2)
        await asyncio.sleep(5)  # the newest samples, and positions are published
        text = str(await page(f"{url}/metrics"))
        assert set(re.findall(r'headrace_records_read_total\{agent="users",worker="(\d)"\}', text)) == {"0", "1"}
        assert lag_of(text) == by_the_tool(site) == {}

        victim = min(pid for pid, command in children_of(fleet.pid).items() if "--supervised" in command)
        os.kill(victim, signal.SIGSTOP)
        await components(url, "Worker", "STALL", "does not answer")
        os.kill(victim, signal.SIGKILL)
        found = await components(url, "Worker", "STOP", "is dead; ended by signal 9")
        assert "Worker" in found["headline"]
        await components(url, "Partitions OK all 4 are open")
    finally:
        fleet.terminate()
        fleet.wait(30)


def is_quiet(text: str) -> bool:
    """Whether all events were applied and nothing waits."""
    counts = re.findall(r"(?m)^headrace_events_applied_total\{.*\} (\S+)$", text)
    return sum(map(float, counts)) >= EVENTS and lag_of(text) == {}


def lag_of(text: str) -> dict[str, float]:
    """Lag per topic by the metrics; a topic without lag counts as none."""
    sums: dict[str, float] = {}
    for topic, value in re.findall(r'(?m)^headrace_consumer_lag_records\{.*topic="([^"]+)".*\} (\S+)$', text):
        sums[topic] = sums.get(topic, 0) + float(value)
    return {topic: lag for topic, lag in sums.items() if lag}
