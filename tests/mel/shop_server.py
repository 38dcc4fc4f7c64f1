"""The shop that Mel visits, and the window through which she reads her mail; both on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from aiohttp import web

from tests.agents.nodes import free_port
from tests.channels.mail_server import MailServer

SHOP: Final = Path(__file__).resolve().parent / "shop"
PAGES: Final = {"": "index.html", "product": "product.html", "shop.css": "shop.css", "shop.js": "shop.js"}
KINDS: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class Shop:
    """Pages as they lie in `shop/`, with the settings that tell them where the door is."""

    def __init__(self, mail: MailServer, settings: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.mail = mail
        self.settings = dict(settings)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.address}"

    def mails(self) -> list[EmailMessage]:
        """Every mail that arrived, as often as it did."""
        return [message_from_bytes(content, policy=policy.default) for _, _, content in self.mail.taken]

    def mail_to(self, address: str) -> EmailMessage:
        """The last mail to an address."""
        return next(mail for mail in reversed(self.mails()) if mail["To"] == address)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = PAGES.get(request.match_info["page"])
        if name is None:
            return web.Response(status=404)
        text = (SHOP / name).read_text("utf-8")
        for key, value in self.settings.items():
            text = text.replace(f"{{{key}}}", value)
        return web.Response(text=text, content_type=KINDS[name.rpartition(".")[2]])

    async def _mail(self, request: web.Request) -> web.Response:
        return web.Response(text=html_of(self.mail_to(request.match_info["address"])), content_type="text/html")

    def app(self) -> web.Application:
        """Its routes."""
        app = web.Application()
        app.router.add_get("/mail/{address}", self._mail)
        app.router.add_get("/{page:[a-z.]*}", self._page)
        return app


def html_of(mail: EmailMessage) -> str:
    """The HTML of a mail."""
    part = mail.get_body(("html",))
    assert part is not None, "a mail without HTML"
    text: str = part.get_content()
    return text


@asynccontextmanager
async def shop(mail: MailServer, settings: Mapping[str, str]) -> AsyncIterator[Shop]:
    """An open shop."""
    one = Shop(mail, settings)
    runner = web.AppRunner(one.app(), access_log=None)
    await runner.setup()
    host, _, port = one.address.rpartition(":")
    await web.TCPSite(runner, host, int(port)).start()
    try:
        yield one
    finally:
        await runner.cleanup()
