"""Blocks of addresses taken away, and subscriptions set, over real HTTP and with a mail server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings
from streams.email_request import BY_ADDRESS, NOBODY, TOO_MANY_IDS, USERS_MAX
from tests.agents.nodes import ask, environment, free_port, process, records, write_workspace
from tests.agents.test_bounces import FILES, Site
from tests.agents.test_keys import FULL, made
from tests.channels.mail_server import mail_server
from tests.streams.ingest.test_mail_report import COMPLAINT

DEAD = "rcpt-550@shop.example"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Mails go to a real server, and there is a door."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    async with mail_server() as server:
        given = {"smtp": f"smtp://127.0.0.1:{server.port}", "tracking_url": "https://t.example", "api_key": FULL}
        http = f"127.0.0.1:{free_port()}"
        settings = load_settings(environment(tmp_path / "data", workspace=workspace, http=http, **given))
        node = Node(settings, SystemClock())
        node.wire(door=True)
        await node.start()
        yield Site(node, server)
        await node.stop()


async def post(node: Node, path: str, body: object, key: str = FULL) -> tuple[int, dict[str, Any]]:
    """What the door answers; what it took is applied by then."""
    url, headers = f"http://{node.settings.http}{path}", {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        found = answer.status, await answer.json()
    await node.quiesce()
    return found


async def test_a_bounced_address_is_mailed_again_once_the_block_is_off(site: Site) -> None:
    """The block for a bounce goes by its own path alone; the next mail is tried, and its refusal blocks again."""
    await site.mail(DEAD)
    assert (await post(site.node, "/email/spam/remove", {"external_ids": ["ann"]}))[0] == 201
    assert (await site.user())["address_blocked"]["why"] == "hard_bounced"
    status, answer = await post(site.node, "/email/bounce/remove", {"external_ids": ["ann", ""]})
    assert (status, answer["users_processed"], answer["errors"][0]["index"]) == (201, 1, 1)
    assert "address_blocked" not in await site.user()
    await site.mail(DEAD)

    assert await site.kinds() == ["Bounce", "Bounce"]
    assert (await site.user())["address_blocked"]["address"] == DEAD


async def test_one_who_complained_is_mailed_after_block_and_subscription(site: Site) -> None:
    """A complaint blocks and unsubscribes: both have to be taken back, each by its own path."""
    await site.mail("ann@example.net")
    assert await site.take(COMPLAINT.replace("the-token", site.proof())) == {"mails": 1, "complaints": 1}
    await post(site.node, "/email/spam/remove", {"external_ids": ["ann"]})
    assert (await site.user())["attributes"]["email_subscribe"] == "unsubscribed"
    body = {"external_ids": ["ann"], "subscription_state": "opted_in"}
    assert (await post(site.node, "/email/status", body))[0] == 201
    assert (await site.user())["attributes"]["email_subscribe"] == "opted_in"
    await site.mail("ann@example.net")

    assert await site.kinds() == ["Send", "Delivery", "MarkAsSpam", "Send", "Delivery"]


@pytest.mark.parametrize("path", ["/email/bounce/remove", "/email/spam/remove", "/email/status"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"email": "a@example.com"}, BY_ADDRESS),
        ({}, NOBODY),
        ({"external_ids": ["a"] * (USERS_MAX + 1)}, TOO_MANY_IDS),
        ({"external_ids": 1}, "Expected `array"),
    ],
)
async def test_what_is_refused(site: Site, path: str, body: dict[str, object], said: str) -> None:
    """A body that names nobody, or too many, or an address, leaves nothing and says why."""
    before = len(await records(site.node, "events"))
    status, answer = await post(site.node, path, {"subscription_state": "subscribed", **body})

    assert status == 400
    assert said in answer["message"]
    assert len(await records(site.node, "events")) == before


async def test_each_path_has_its_own_permission(site: Site) -> None:
    """A key that may set states takes no block away."""
    _, key = await made(site.node, "email.status")
    await process(site.node, {"type": "attributes", "external_id": "ann", "a": 1})

    assert (await post(site.node, "/email/bounce/remove", {"external_ids": ["ann"]}, key))[0] == 403
    body = {"external_ids": ["ann"], "subscription_state": "unsubscribed"}
    assert (await post(site.node, "/email/status", body, key))[0] == 201


async def test_a_user_whom_nobody_knows_is_a_dead_letter(site: Site) -> None:
    """Taking a block off makes no user; that nobody was meant is told where refused records are."""
    await post(site.node, "/email/bounce/remove", {"external_ids": ["nobody"]})
    totals = await ask(site.node, "totals")

    assert (totals["users"], totals["dead_letters"]) == (0, 1)
