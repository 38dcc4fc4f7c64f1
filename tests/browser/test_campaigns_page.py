"""The campaigns page in Chromium: variants against control in numbers and a chart, on any screen, for everyone."""

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings
from tests.agents.nodes import environment, event, free_port, process, write_workspace
from tests.browser.chromium import Page, browser, chromium
from tests.browser.screens import BOTH, DRAWN_S, MIXED, WIDTHS, Themes, no_violation

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.timeout(300),
]

KEY = "a-test-key"
MAIL = {"to": "{{ ${email_address} }}", "subject": "Hello", "text": "Hello"}
FILES: dict[str, Any] = {
    "campaigns/spring_offer.yaml": {
        "name": "spring_offer",
        "trigger": {"event": {"name": "like"}},
        "channel": "email",
        "control": 20,
        "variants": [
            {"name": "short", "percent": 40, "message": MAIL},
            {"name": "long", "percent": 40, "message": {**MAIL, "text": "Hello, hello"}},
        ],
        "conversions": [{"name": "bought", "purchase": {}}],
    },
    "campaigns/welcome.yaml": {
        "name": "welcome",
        "trigger": {"event": {"name": "like"}},
        "channel": "webhook",
        "message": {"body": "hi"},
    },
}
USERS = [f"user-{at}" for at in range(60)]


def bought(user: str) -> dict[str, Any]:
    """A purchase."""
    return {"type": "purchase", "external_id": user, "product_id": "p", "currency": "EUR", "price": 9.5}


async def look_at(page: Page, name: str, words: tuple[str, ...], shots: Path, themes: Themes = BOTH) -> None:
    """On every screen the words stand there, nothing is cut off, and axe finds no fault."""
    for width_name, width in WIDTHS.items():
        for dark in themes[width_name]:
            await page.look(width, dark=dark)
            await asyncio.sleep(DRAWN_S)
            text = await page.run("document.body.innerText")
            assert [word for word in words if word not in text] == [], text
            assert await page.run("document.documentElement.scrollWidth - innerWidth") <= 0, (name, width)
            await page.screenshot(shots / f"{name}-{width_name}-{'dark' if dark else 'light'}.png")
            await no_violation(page)


async def unlock(page: Page) -> None:
    """Give the key as a person does."""
    await page.until("document.body?.dataset.ready === 'yes'")
    assert not await page.run("document.getElementById('ask').hidden")
    script = f"document.getElementById('key').value = '{KEY}'; document.querySelector('#ask button').click()"
    await page.run(script)
    await page.until("document.getElementById('ask').hidden")


async def test_campaigns_on_every_screen(tmp_path: Path) -> None:
    """With the key the page shows all campaigns and one, variant by variant, live; without it no number."""
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    http = f"127.0.0.1:{free_port()}"
    workspace = write_workspace(tmp_path / "workspace", FILES)
    own = {"workspace": workspace, "http": http, "api_key": KEY}
    node = Node(load_settings(environment(tmp_path / "data", **own)), SystemClock())
    node.wire(door=True)
    await node.start()
    try:
        await process(node, *({"type": "attributes", "external_id": u, "email": f"{u}@example.com"} for u in USERS))
        await process(node, *(event(user) for user in USERS))
        await process(node, *(bought(user) for user in USERS[::3]))
        async with browser(tmp_path / "profile") as page:
            await page.call("Page.enable")
            await page.call("Page.navigate", url=f"http://{http}/campaigns")
            await unlock(page)
            await look_at(page, "campaigns", ("spring_offer", "welcome", "active"), shots, MIXED)
            await page.run("document.querySelector('#campaigns a').click()")
            await page.until(
                "location.pathname === '/campaigns/spring_offer' && document.body?.dataset.ready === 'yes'"
            )
            await page.until("!document.getElementById('one').hidden")
            await look_at(page, "campaign", ("short", "long", "Control group", "against the control group"), shots)
            before = await page.run("document.getElementById('variants').innerText")
            await process(node, *(bought(user) for user in USERS))
            await page.until(f"document.getElementById('variants').innerText !== {before!r}", 10)
            names = "performance.getEntriesByType('resource').map((each) => each.name)"
            assert [each for each in await page.run(names) if not each.startswith(f"http://{http}")] == []
        async with aiohttp.ClientSession() as session:
            url = f"http://{http}/campaigns"
            for path in (".json", ".json?campaign=welcome", ".csv?campaign=welcome"):
                async with session.get(url + path) as answer:
                    assert answer.status == 401
            headers = {"Authorization": f"Bearer {KEY}"}
            async with session.get(f"{url}.csv?campaign=welcome&length=2", headers=headers) as answer:
                lines = (await answer.text()).split("\r\n")
        assert len(lines) == 4
        assert lines[0].startswith("campaign,variant,time,sent,")
        assert lines[2].startswith("welcome,,")
    finally:
        await node.stop()
