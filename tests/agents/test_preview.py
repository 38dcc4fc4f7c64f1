"""Previews and test mails: what a user would get, told without a trace in counts, rows, topics or reports."""

import argparse
import mailbox
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from agents.web.mail_commands import COMMANDS
from agents.web.preview_page import to_page
from config.clock import ManualClock
from config.settings import load_settings
from streams.errors import BadSetting
from tests.agents.nodes import NOW_MS, environment, free_port, process, records, write_workspace

KEY = "k" * 20
HTML = (
    "<p>Hi {{ ${first_name} | default: 'there' }}</p><a href='https://shop.example'>x</a>"
    "<a href='{{ ${unsubscribe_url} }}'>out</a>"
)
MESSAGE = {"to": "{{ ${email_address} }}", "subject": "Hi {{ ${first_name} | default: 'there' }}", "html": HTML}
FILES = {
    "segments/vip.yaml": {"name": "vip", "filter": {"attribute": {"path": "vip", "is": True}}},
    "campaigns/hello.yaml": {
        "name": "hello",
        "trigger": {"event": {"name": "like"}},
        "audience": {"segment": "vip"},
        "channel": "email",
        "variants": [
            {"name": "short", "percent": 50, "message": {**MESSAGE, "subject": "Short"}},
            {"name": "long", "percent": 50, "message": MESSAGE},
        ],
    },
    "campaigns/hook.yaml": {
        "name": "hook",
        "trigger": {"event": {"name": "like"}},
        "channel": "webhook",
        "message": {"url": "https://shop.example/", "body": '{"user": "{{ ${user_id} }}"}'},
    },
    "campaigns/stop.yaml": {
        "name": "stop",
        "trigger": {"event": {"name": "like"}},
        "channel": "email",
        "message": {**MESSAGE, "subject": "{% abort_message('not today') %}"},
    },
}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node that knows ann, a VIP, and bob, of whom only an odd name is known."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    settings = {"http": f"127.0.0.1:{free_port()}", "api_key": KEY, "workspace": workspace}
    node = Node(load_settings(environment(tmp_path / "data", **settings)), ManualClock(NOW_MS))
    node.wire(door=True)
    await node.start()
    ann = {"external_id": "ann", "email": "ann@example.com", "first_name": "Ann", "vip": True}
    bob = {"external_id": "bob", "first_name": "<script>alert(1)</script>", "email_subscribe": "unsubscribed"}
    await process(node, *({"type": "attributes", **each} for each in (ann, bob)))
    yield node
    await node.stop()


async def preview(node: Node, campaign: str, user: str, **more: str) -> dict[str, Any]:
    """What the command is answered."""
    found: Any = await node.ask("preview", {"campaign": campaign, "user": user, **more})
    assert isinstance(found, dict)
    return found


async def traces(node: Node) -> list[Any]:
    """Everything that a real message would leave something in."""
    await node.quiesce()
    topics = ("events", "mailbox", "sends.email", "currents", "segment-changes", "dead-letters")
    found: list[Any] = [await records(node, topic) for topic in topics]
    return [
        *found,
        await node.ask("sends", {}),
        [await node.ask("user", {"external_id": name}) for name in ("ann", "bob")],
    ]


async def test_a_preview_is_the_message_of_the_user(node: Node) -> None:
    """Subject, address and bodies are as the user would get them, of either variant, without a counted link."""
    long = await preview(node, "hello", "ann", variant="long")
    short = await preview(node, "hello", "ann", variant="short")

    assert (long["subject"], short["subject"], long["to"]) == ("Hi Ann", "Short", "ann@example.com")
    assert long["why_not"] == []
    assert '<p>Hi Ann</p><a href="https://shop.example">' in long["html"].replace("'", '"')
    assert "/t/c/" not in long["html"]
    assert "<img" not in long["html"]
    assert "/t/u/preview" in long["html"]
    assert (await preview(node, "hook", "ann"))["body"].count("ann")


async def test_a_preview_without_a_variant_is_the_user_s_own(node: Node) -> None:
    """Without a name the variant is shown that the user would get, the same each time."""
    assert (await preview(node, "hello", "ann")) == (await preview(node, "hello", "ann"))
    assert (await preview(node, "hello", "ann"))["variant"] in ("short", "long")


async def test_a_preview_says_what_would_keep_it_back(node: Node) -> None:
    """Audience, consent, a missing address, an abort and a pause are each named."""
    assert (await preview(node, "hello", "bob"))["why_not"] == ["not_in_audience", "unsubscribed", "no_address"]
    assert (await preview(node, "stop", "ann"))["why_not"] == ["not today"]
    await node.workspaces.pause("hello", paused=True)
    assert (await preview(node, "hello", "ann"))["why_not"] == ["campaign_paused"]
    for wrong in ({"campaign": "nope", "user": "ann"}, {"campaign": "hello", "user": "nobody"}):
        with pytest.raises(BadSetting, match=r"nope|nobody"):
            await node.ask("preview", wrong)
    with pytest.raises(BadSetting, match="short, long"):
        await preview(node, "hello", "ann", variant="third")


async def test_a_preview_leaves_no_trace(node: Node) -> None:
    """Neither rows nor topics nor counts differ after previews and a test mail."""
    before = await traces(node)
    await preview(node, "hello", "ann")
    await preview(node, "stop", "ann")
    await mail_a_test(node, "me@example.org")

    assert await traces(node) == before


async def mail_a_test(node: Node, to: str) -> Any:  # noqa: ANN401  # a message of the standard library
    """Send a test mail, and give it back as the outbox holds it."""
    arguments = argparse.Namespace(campaign="hello", user="ann", variant="long", to=to)
    said: Any = await COMMANDS["test-send"](node, node.settings, arguments)
    assert said["sent_to"] == to
    box = mailbox.mbox(node.settings.outbox_folder / "email.mbox", create=False)
    try:
        (mail,) = [box.get_message(key) for key in box.iterkeys()]
    finally:
        box.close()
    return mail


async def test_a_test_mail_goes_to_whom_was_asked_for(node: Node) -> None:
    """A test mail goes to the address that was asked for and to nobody else, with the user's content."""
    mail = await mail_a_test(node, "me@example.org")

    assert (mail["To"], mail["Subject"]) == ("me@example.org", "Hi Ann")
    assert "ann@example.com" not in mail.as_string()
    assert "X-Headrace-Proof" not in mail


@pytest.mark.parametrize(
    "to", ["", "me", "me@example.org, you@example.org", "Me <me@example.org>", "me@b.c\r\nBcc: x@y.z"]
)
async def test_a_test_mail_has_one_address(node: Node, to: str) -> None:
    """Whatever is not one plain address is refused before anything is rendered."""
    arguments = argparse.Namespace(campaign="hello", user="ann", variant="", to=to)
    with pytest.raises(BadSetting, match="one address"):
        await COMMANDS["test-send"](node, node.settings, arguments)


async def test_a_preview_over_http_needs_the_key(node: Node) -> None:
    """Without the key nothing is told of a user; with it, JSON for machines and a page for people."""
    url = f"http://{node.settings.http}/campaigns/hello/preview"
    key = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession() as session:
        async with session.get(url, params={"user": "ann"}) as answer:
            assert (answer.status, "Ann" in await answer.text()) == (401, False)
        async with session.get(url, params={"user": "ann", "variant": "long"}, headers=key) as answer:
            assert (answer.status, (await answer.json())["subject"]) == (200, "Hi Ann")
        async with session.get(url, params={"user": "nobody"}, headers=key) as answer:
            assert answer.status == 404
        async with session.get(url, params={"user": "ann"}, headers={**key, "Accept": "text/html"}) as answer:
            assert answer.content_type == "text/html"
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


class Tags(HTMLParser):
    """The tags of a page, and the documents in its frames."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.frames: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "iframe":
            self.frames.append(dict(attrs))


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><script>x</script>', "'\"><img src=x onerror=y>", "&lt;b&gt;"]
)
def test_names_are_escaped_where_a_page_shows_them(text: str) -> None:
    """Script in a name, a subject or a mail runs nowhere: it is text, or stands in a frame without any right."""
    found = {"campaign": "c", "user": text, "to": text, "subject": text, "html": text, "text": text, "why_not": [text]}
    page = Tags(to_page(found))

    assert not {"script", "img", "b"} & set(page.tags)
    (frame,) = page.frames
    assert frame["sandbox"] == ""
    assert frame["srcdoc"] == text
