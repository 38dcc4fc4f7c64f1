"""The web SDK in Chromium against a real door: events arrive once, and what was logged offline survives a reload."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings
from tests.agents.nodes import environment, free_port, records
from tests.browser.chromium import Page, browser, chromium

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(120),
]

APP = "5e1f0c3a-web"
PAGE = """<!doctype html><title>A shop</title>
<script src="{door}/sdk/headrace.js"></script>
<script>
headrace.initialize("{app}", {{flushIntervalInSeconds: 0.5}});
headrace.openSession();
</script>"""
AWAY = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
BACK = {**AWAY, "offline": False}


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[tuple[Node, str]]:
    """A node, and a shop on another origin whose pages hold the SDK of the node's door."""
    door, port = f"127.0.0.1:{free_port()}", free_port()
    own = {"http": door, "app_ids": APP, "cors_origins": f"http://127.0.0.1:{port}", "api_key": "a-rest-key"}
    node = Node(load_settings(environment(folder / "data", **own)), SystemClock())
    node.wire(door=True)

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=PAGE.format(door=f"http://{door}", app=APP), content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await node.start()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield node, f"http://127.0.0.1:{port}/"
    finally:
        await runner.cleanup()
        await node.stop()


async def opened(page: Page, url: str) -> None:
    """Open the shop anew, and wait until its SDK has begun."""
    await page.run("window.gone = true")
    await page.call("Page.navigate", url=url)
    await page.until("!window.gone && document.readyState === 'complete' && window.headrace?.isInitialized()")


async def items(node: Node) -> list[tuple[str, dict[str, Any]]]:
    """What lies in the events topic."""
    return [((each.key or b"").decode(), json.loads(each.value)) for _, each in await records(node, "events")]


async def test_events_of_a_page_on_another_origin_arrive_under_their_user(tmp_path: Path) -> None:
    """A visitor's session, event, setters, id and purchase lie in the log with the keys of who was there then."""
    async with shop(tmp_path) as (node, url), browser(tmp_path / "profile") as page:
        await opened(page, url)
        await page.run("headrace.logCustomEvent('viewed', {page: '/shoes'})")
        await page.run("headrace.getUser().setEmail('mel@example.com'); headrace.changeUser('mel')")
        await page.run("headrace.logPurchase('shoe', 19.9, 'EUR', 2)")
        assert await page.run("headrace.requestImmediateDataFlush()") is True
        device = await page.run("headrace.getDeviceId()")
        found = await items(node)
        of_device = [value["type"] for key, value in found if key == f"device:{device}"]
        of_mel = [value["type"] for key, value in found if key == "mel"]
        assert [kind for kind in of_device if kind != "attributes"] == [
            *("session_start", "event", "session_end", "identify"),
        ]
        assert [kind for kind in of_mel if kind != "attributes"] == ["session_start", "purchase"]
        await node.quiesce()
        mel = node.queries.user("mel")
        assert mel is not None
        assert mel["money"] == {"EUR": "39.8"}
        assert (await page.run("headrace.getQueueStatus()"))["queued"] == 0


async def test_what_was_logged_offline_survives_a_reload_and_arrives_once(tmp_path: Path) -> None:
    """The page logs offline, is left and opened again; online everything is in the log, in order, and counts once."""
    names = [f"e{number}" for number in range(30)]
    async with shop(tmp_path) as (node, url), browser(tmp_path / "profile") as page:
        await page.call("Network.enable")
        await opened(page, url)
        await page.until("headrace.getQueueStatus().queued === 0")
        await page.run("headrace.changeUser('mel')")
        await page.call("Network.emulateNetworkConditions", **AWAY)
        await page.run(f"{names[:20]}.forEach((name) => headrace.logCustomEvent(name))")
        await page.run("headrace.requestImmediateDataFlush()")
        assert not [value for _, value in await items(node) if value["type"] == "event"]
        await page.call("Network.emulateNetworkConditions", **BACK)
        await page.run("Object.defineProperty(navigator, 'onLine', {value: false}); navigator.sendBeacon = () => false")
        await page.run(f"{names[20:]}.forEach((name) => headrace.logCustomEvent(name))")
        assert (await page.run("headrace.getQueueStatus()"))["queued"] >= 10
        await opened(page, url)
        await page.until("headrace.getQueueStatus().queued === 0")
        await node.quiesce()
        mel = node.queries.user("mel")
        assert mel is not None
        assert {name: found["count"] for name, found in mel["events"].items()} == dict.fromkeys(names, 1)
        arrived = [value["name"] for _, value in await items(node) if value["type"] == "event"]
        assert list(dict.fromkeys(arrived)) == names
        assert (await page.run("headrace.getQueueStatus()"))["dropped"]["overflow"] == 0


async def test_a_page_that_is_left_sends_what_it_has(tmp_path: Path) -> None:
    """An event logged just before the visitor goes elsewhere arrives by beacon, though no script runs any more."""
    async with shop(tmp_path) as (node, url), browser(tmp_path / "profile") as page:
        await opened(page, url)
        await page.until("headrace.getQueueStatus().queued === 0")
        await page.run("window.fetch = () => new Promise(() => undefined); headrace.logCustomEvent('leaving')")
        await page.call("Page.navigate", url="about:blank")
        await page.until("location.href === 'about:blank'")
        await node.quiesce()
        found: list[str] = []
        while "leaving" not in found:
            await asyncio.sleep(0.1)
            found = [value.get("name", "") for _, value in await items(node)]
