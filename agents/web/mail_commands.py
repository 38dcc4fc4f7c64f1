"""Commands about mail: what bounced, and what a mail would look like."""

import argparse
import asyncio
import re
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from agents.delivery.providers import providers_of
from agents.signing import signing_keys
from agents.web.bounces import take_bounces
from agents.web.replay import Asked
from channels.channel import Request
from channels.mail_address import MailAddress, read_address
from config.settings import Settings
from streams.errors import BadSetting, OutsideFailing

Command = Callable[[Asked, Settings, argparse.Namespace], Awaitable[Any]]


async def _bounces(session: Asked, settings: Settings, arguments: argparse.Namespace) -> dict[str, int]:
    return await take_bounces(session, arguments.source, sys.stdin.buffer, signing_keys(settings, make=False))


async def _preview(session: Asked, settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    wanted = {"campaign": arguments.campaign, "user": arguments.user, "variant": arguments.variant}
    found: Any = await session.ask("preview", wanted)
    if found is None:
        raise OutsideFailing("no worker holds this user now; try again in a moment")
    if arguments.html is not None:
        await asyncio.to_thread(arguments.html.write_text, found.get("html", ""), "utf-8")
    hidden = () if arguments.json else ("mail", "html")
    return {name: value for name, value in found.items() if name not in hidden}


async def _test_send(session: Asked, settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    """The mail goes by our own connection to the mail server, or into the outbox; nothing is recorded of it."""
    address = read_address(arguments.to)
    if address is None or address.name:
        raise BadSetting(f"--to {arguments.to}: give one address, such as me@example.com")
    dispatch_id = secrets.token_hex(16)
    wanted = {"campaign": arguments.campaign, "user": arguments.user, "variant": arguments.variant}
    found: Any = await session.ask("preview", {**wanted, "to": address.mailbox, "dispatch_id": dispatch_id})
    if found is None:
        raise OutsideFailing("no worker holds this user now; try again in a moment")
    if "mail" not in found:
        raise BadSetting(f"nothing to send: {', '.join(found['why_not']) or 'not a mail'}")
    provider = providers_of(settings, signing_keys(settings, make=False))["email"]
    try:
        receipt = await provider.attempt(Request(dispatch_id, address.mailbox, _readdressed(found["mail"], address)))
    finally:
        await provider.close()
    if receipt.kind != "sent":
        raise OutsideFailing(f"{provider.name}: {receipt.reason or receipt.kind}")
    return {"sent_to": address.mailbox, "by": provider.name, "subject": found["subject"], "why_not": found["why_not"]}


def _readdressed(mail: str, address: MailAddress) -> bytes:
    """The mail with another recipient in its header."""
    head, separator, body = mail.partition("\n\n")
    return (_TO.sub(f"To: {address.header}", head, count=1) + separator + body).encode("ascii")


_TO: Final = re.compile(r"^To: .*(?:\n[ \t].*)*", re.MULTILINE)
COMMANDS: Final[Mapping[str, Command]] = {"bounces": _bounces, "preview": _preview, "test-send": _test_send}
