"""A person in front of a browser: opens pages, types, and clicks with a real mouse, on the story's clock."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.browser.chromium import Page, browser
from tests.mel.product import PATIENCE_S
from tests.mel.story_clock import StoryClock

PERSON = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
"""A headless browser says that it is one, and neither SDK nor tracking takes a robot for a person."""

WIDTH, HEIGHT = 900, 660
CLOCK = """(() => {
  const real = Date, offset = %d;
  class StoryDate extends real {
    constructor(...parts) { parts.length ? super(...parts) : super(real.now() + offset); }
    static now() { return real.now() + offset; }
  }
  globalThis.Date = StoryDate;
})();"""
MIDDLE = """(() => {
  const found = document.querySelector(%s);
  if (!found) return null;
  found.scrollIntoView({block: 'center'});
  const box = found.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})()"""
LOADED = "document.readyState === 'complete'"


class Visitor:
    """Mel's browser, with a profile of its own."""

    def __init__(self, page: Page, clock: StoryClock) -> None:
        self.page = page
        self._clock = clock
        self._script = ""

    async def look(self, width: int, height: int) -> None:
        """Look through a window of this size."""
        size = {"width": width, "height": height}
        await self.page.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    async def visit(self, url: str) -> None:
        """Open a page, and wait until it is there with everything in it."""
        if self._script:
            await self.page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=self._script)
        source = CLOCK % self._clock.offset_ms
        added = await self.page.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        self._script = added["identifier"]
        answer = await self.page.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        await self.page.until(LOADED)

    async def until(self, script: str, seconds: float = PATIENCE_S) -> None:
        """Wait until a script gives something true."""
        await self.page.until(script, seconds)

    async def click(self, selector: str) -> None:
        """Click in the middle of the first thing that it names."""
        place = f"{MIDDLE % json.dumps(selector)}"
        await self.until(f"{place} !== null")
        x, y = await self.page.run(place)
        for kind in ("mousePressed", "mouseReleased"):
            await self.page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type_into(self, selector: str, text: str) -> None:
        """Click on a field, and write."""
        await self.click(selector)
        await self.page.call("Input.insertText", text=text)

    async def screenshot(self, path: Path) -> None:
        """What the page looks like."""
        await self.page.screenshot(path)


@asynccontextmanager
async def visitor(folder: Path, clock: StoryClock, zone: str) -> AsyncIterator[Visitor]:
    """A browser until the block ends, at home in a time zone, which the SDK tells; raises what `browser` raises."""
    async with browser(folder) as page:
        await page.call("Page.enable")
        await page.call("Network.enable")
        await page.call("Network.setUserAgentOverride", userAgent=PERSON)
        await page.call("Emulation.setTimezoneOverride", timezoneId=zone)
        one = Visitor(page, clock)
        await one.look(WIDTH, HEIGHT)
        yield one
