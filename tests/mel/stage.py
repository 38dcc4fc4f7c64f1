"""What the story is played on: the product, a mail server, a shop, a browser, and a clock that all of them share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import fastavro

from streams.times import DAY_MS
from tests.channels.mail_server import mail_server
from tests.mel.people import MEL
from tests.mel.product import Product, product
from tests.mel.shop_server import Shop, shop
from tests.mel.story_clock import StoryClock
from tests.mel.visitor import Visitor, visitor

MORNING_MS: Final = 9 * 3_600_000
APP: Final = "side-b-web"
SIGNING_KEY: Final = "of-the-story-only-" * 2

Row = dict[str, Any]


@dataclass
class Stage:
    """Everything that is up; `folder` holds all that is left of a run."""

    folder: Path
    clock: StoryClock
    product: Product
    shop: Shop
    mel: Visitor

    async def rows(self, kind: str) -> list[Row]:
        """Every row of one event type in the export files, as another reader of Avro sees them."""
        await self.product.ask("flush")
        return await asyncio.to_thread(self._rows, kind)

    def _rows(self, kind: str) -> list[Row]:
        found: list[Row] = []
        for path in sorted(self.product.exports.glob(f"event_type={kind}/*/*.avro")):
            with path.open("rb") as file:
                found += [dict(row) for row in fastavro.reader(file) if isinstance(row, dict)]
        return found


@asynccontextmanager
async def stage(folder: Path, transport: str) -> AsyncIterator[Stage]:
    """A stage on a morning; nothing of the product runs yet. Raises BrokerUnavailableError without Kafka."""
    folder.mkdir(parents=True)
    clock = StoryClock(folder / "clock")
    # The next morning, never a past one: a broker does not work more than an hour behind the machine's time.
    clock.jump_to((clock.now_ms() - MORNING_MS) // DAY_MS * DAY_MS + DAY_MS + MORNING_MS)
    async with AsyncExitStack() as stack:
        address = ""
        if transport == "kafka":
            broker = clock.broker(folder / "kafka")
            stack.callback(broker.stop)
            await asyncio.to_thread(broker.start)
            address = broker.address
        mail = await stack.enter_async_context(mail_server())
        open_shop = await stack.enter_async_context(shop(mail, {"app": APP}))
        running = await stack.enter_async_context(
            product(
                folder,
                clock,
                address,
                SMTP=f"smtp://127.0.0.1:{mail.port}",
                APP_IDS=APP,
                CORS_ORIGINS=open_shop.url,
                SIGNING_KEY=SIGNING_KEY,
            )
        )
        open_shop.settings["door"] = running.url
        running.settings["TRACKING_URL"] = running.url
        mel = await stack.enter_async_context(visitor(folder / "browser", clock, MEL.time_zone))
        yield Stage(folder, clock, running, open_shop, mel)
