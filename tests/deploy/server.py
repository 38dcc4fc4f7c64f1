"""A real Prometheus on loopback, with our alert rules at a quicker pace, that a test can ask."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.agents.nodes import free_port
from tests.deploy.test_alerts import RULES

EVERY = "1s"
QUICKER = 20
"""Every `for` and every range is divided by this; thresholds, and what the alerts say, stay as they are."""

FOR_S_MIN = 10
"""Below, a machine that is busy for a moment would look like a worker that does not answer."""

RANGE_S_MIN = 15
"""Below, a rate would have too few samples: a fleet's numbers are new every two seconds."""

START_S_MAX = 60.0
UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
Series = list[dict[str, Any]]


def seconds(duration: str) -> int:
    """A Prometheus duration of one unit, such as `5m`."""
    return int(duration[:-1]) * UNITS[duration[-1]]


def quickened(rules: str) -> str:
    """The rules with shorter times: each `for` and each `[range]` divided by `QUICKER`, nothing else changed."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        for rule in group["rules"]:
            held_s = seconds(rule["for"])
            rule["for"] = f"{max(FOR_S_MIN, held_s // QUICKER) if held_s else 0}s"
            rule["expr"] = re.sub(
                r"\[(\d+[smhd])\]", lambda found: f"[{max(RANGE_S_MIN, seconds(found[1]) // QUICKER)}s]", rule["expr"]
            )
    return str(yaml.safe_dump(document))


class Prometheus:
    """A server that scrapes and evaluates every second; asked over its own API."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def _get(self, path: str, **params: str) -> Any:  # noqa: ANN401 - its answers are JSON
        async with aiohttp.ClientSession() as session, session.get(self._url + path, params=params) as answer:
            found = await answer.json()
            assert found["status"] == "success", found
            return found["data"]

    async def query(self, expression: str) -> Series:
        """The series that an expression gives now."""
        return list((await self._get("/api/v1/query", query=expression))["result"])

    async def over(self, expression: str, start_s: float, end_s: float) -> Series:
        """The series that it gave between two times."""
        times = {"start": str(start_s), "end": str(end_s), "step": "2"}
        return list((await self._get("/api/v1/query_range", query=expression, **times))["result"])

    async def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {each["metric"]["alertname"] for each in await self.query('ALERTS{alertstate="firing"}')}

    async def fired(self, start_s: float, end_s: float) -> set[str]:
        """The names of the alerts that fired at any moment between two times."""
        found = await self.over('ALERTS{alertstate="firing"}', start_s, end_s)
        return {each["metric"]["alertname"] for each in found}

    async def is_up(self) -> bool:
        """Whether it serves, and its last scrape worked."""
        try:
            return [each["value"][1] for each in await self.query("up")] == ["1"]
        except (aiohttp.ClientError, AssertionError, ValueError):
            return False


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Prometheus]:
    """A server that scrapes `host:port`, until the block ends; its data lies in `folder`."""
    folder.mkdir(parents=True)
    (folder / "alerts.yaml").write_text(quickened(RULES.read_text("utf-8")), "utf-8")
    config = {
        "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
        "rule_files": [str(folder / "alerts.yaml")],
        "scrape_configs": [{"job_name": "headrace", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), "utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [shutil.which("prometheus") or "prometheus", f"--config.file={folder / 'prometheus.yaml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    server = Prometheus(f"http://{address}")
    try:
        async with asyncio.timeout(START_S_MAX):
            while not await server.is_up():
                assert process.poll() is None, (folder / "log").read_text("utf-8")
                await asyncio.sleep(0.2)
        yield server
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, START_S_MAX)
