"""The status page in Chromium: what is wrong stands in words on the first screen, on any screen, for everyone."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from agents.status.board import Look
from agents.status.gauges import Gauges
from config.clock import SystemClock
from config.settings import load_settings
from streams.health import Worker
from tests.agents.nodes import environment, event, free_port, process, send, write_workspace
from tests.browser.chromium import browser, chromium
from tests.browser.screens import opened, says_on_every_screen

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]

KEY = "a-test-key"
FILES: dict[str, Any] = {
    "segments/fresh.yaml": {"name": "fresh", "filter": {"event": {"name": "like", "within": "1h"}}},
    "campaigns/hook.yaml": {
        "name": "hook",
        "trigger": {"event": {"name": "like"}},
        "channel": "webhook",
        "message": {"body": "hi"},
        "re_eligible_after": "0s",
    },
}


class WithADeadWorker:
    """This process, and a second worker that was killed: what a fleet sees, without a fleet."""

    def __init__(self, gauges: Gauges, died_ms: int) -> None:
        self._gauges = gauges
        self._dead = Worker("1", "ended", died_ms, "ended by signal 9")

    async def look(self) -> Look:
        found = await self._gauges.look()
        return found._replace(workers=[*found.workers, self._dead])


@asynccontextmanager
async def silence() -> AsyncIterator[str]:
    """The address of a provider that takes every connection and never answers."""
    open_: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        for writer in open_:
            writer.close()
        server.close()


@asynccontextmanager
async def site(folder: Path, **settings: object) -> AsyncIterator[tuple[Node, str]]:
    """A running node with a door, and where its page is."""
    http = f"127.0.0.1:{free_port()}"
    workspace = write_workspace(folder / "workspace", FILES)
    own = {"workspace": workspace, "http": http, "api_key": KEY, **settings}
    clock = SystemClock()
    node = Node(load_settings(environment(folder / "data", **own)), clock)
    node.wire(door=True)
    await node.start()
    try:
        yield node, f"http://{http}"
    finally:
        await node.stop()


async def test_the_first_screen_names_a_hanging_provider_and_a_dead_worker(tmp_path: Path) -> None:
    """While a provider hangs and a worker is dead, the first screen names both, in words, on every width."""
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    async with silence() as hook, site(tmp_path, webhook_url=hook, http_allow="127.0.0.0/8") as (node, url):
        node.board._source = WithADeadWorker(node.gauges, SystemClock().now_ms() - 65_000)
        await send(node, *(event(f"user-{number}") for number in range(40)), b"no json")
        async with browser(tmp_path / "profile") as page:
            await opened(page, url)
            await page.until("document.body.innerText.includes('no answer for')")
            await asyncio.sleep(4.5)  # a few points for the charts
            words = ("Worker 1", "is dead; ended by signal 9", "Provider of webhook", "no answer for")
            await says_on_every_screen(page, words, shots)
            headline = await page.run("document.getElementById('headline').innerText")
            assert "Worker 1, Provider of webhook" in headline
            outside = await page.run("performance.getEntriesByType('resource').map((each) => each.name)")
            assert [each for each in outside if not each.startswith(url)] == []


async def test_a_replay_needs_the_key(tmp_path: Path) -> None:
    """The page's one action is refused without the key, and with it puts the letters back, once."""
    async with site(tmp_path) as (node, url), aiohttp.ClientSession() as session:
        await process(node, b"no json")
        await node.board.look()
        async with session.get(f"{url}/status.json") as answer:
            report = await answer.json()
        # Counted per process, so those of other tests are among them.
        letter, said = next(each for each in report["dead_letters"] if each["reason"] == "not_json"), {}
        for key, status in (("wrong", 401), (KEY, 200)):
            headers = {"Authorization": f"Bearer {key}"}
            async with session.post(
                f"{url}/status/replay", json={"reason": letter["reason"]}, headers=headers
            ) as answer:
                assert answer.status == status
                said = await answer.json()
        assert said["letters"] == 1
        async with session.get(f"{url}/status.json?after_ms=x") as answer:
            assert answer.status == 400
