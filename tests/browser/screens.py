"""The status page on every screen, phone, tablet and desktop, light and dark, all held to the same demands."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from tests.browser.chromium import Page

WIDTHS = {"phone": 390, "tablet": 820, "desktop": 1280}
Themes = Mapping[str, tuple[bool, ...]]
"""For each width: light (False), dark (True) or both."""

BOTH: Themes = dict.fromkeys(WIDTHS, (False, True))
MIXED: Themes = {"phone": (True,), "tablet": (False,), "desktop": (True,)}
DRAWN_S = 2.2
"""The page looks every two seconds; then it is drawn for the screen that it has now."""

FIRST_SCREEN = """[...document.querySelectorAll('#components li')]
    .filter((row) => row.getBoundingClientRect().bottom <= innerHeight)
    .map((row) => row.innerText).join('\\n')"""


AXE = Path(str(distribution("axe-playwright-python").locate_file("axe_playwright_python/axe.min.js")))


async def opened(page: Page, url: str) -> None:
    """Open the page and wait for its first data."""
    await page.call("Page.enable")
    await page.call("Page.navigate", url=f"{url}/status")
    await page.until("document.body?.dataset.ready === 'yes'")


async def says_on_every_screen(page: Page, words: tuple[str, ...], shots: Path, themes: Themes = BOTH) -> None:
    """Hold every screen to it: the words stand on the first screen, nothing is cut off, and axe finds no fault."""
    for name, width in WIDTHS.items():
        for dark in themes[name]:
            await page.look(width, dark=dark)
            await asyncio.sleep(DRAWN_S)
            first = await page.run(FIRST_SCREEN)
            assert [word for word in words if word not in first] == [], first
            wide = await page.run("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (name, wide)
            await page.screenshot(shots / f"status-{name}-{'dark' if dark else 'light'}.png")
            await no_violation(page)


async def no_violation(page: Page) -> None:
    """Hold the page to axe."""
    await page.run(AXE.read_text("utf-8") + ";0")
    found = await page.run("axe.run().then((report) => report.violations.map((each) => [each.id, each.nodes[0].html]))")
    assert found == []
