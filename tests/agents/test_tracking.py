"""The door of messages' links over real HTTP: from a mail in the outbox to rows and exports; nothing for forgers."""

import email
import mailbox
import re
from collections.abc import AsyncIterator, Mapping
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import fastavro
import pytest

from agents.node import Node
from agents.web import hits, tracking
from agents.web.tracking import TrackingDoor
from config import metrics
from config.clock import ManualClock
from config.settings import load_settings
from streams.engagement import Claims, TokenKind, sign
from streams.errors import OutsideFailing
from streams.exports import decode_row
from streams.records import Output
from tests.agents.nodes import NOW_MS, environment, event, free_port, process, records, write_workspace

HTML = '<p>Hi {{ ${first_name} | default: "there" | escape }}</p><a href="https://shop.example/?a=1&amp;b=2">shop</a>'
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.0"
GOOGLE = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
FILES = {
    "campaigns/hello.yaml": {
        "name": "hello",
        "trigger": {"event": {"name": "like"}},
        "re_eligible_after": "1s",
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "s", "text": "t", "html": HTML},
    }
}


class Reader:
    """Somebody who got a mail, and a node behind the door that its links lead to."""

    def __init__(self, node: Node, session: aiohttp.ClientSession, clock: ManualClock) -> None:
        self.node = node
        self.clock = clock
        self.session = session
        self.base = f"http://{node.settings.http}"

    async def mails(self) -> list[Any]:
        """Every mail so far."""
        box = mailbox.mbox(self.node.settings.outbox_folder / "email.mbox", create=False)
        try:
            return [email.message_from_bytes(box.get_bytes(key), policy=default) for key in box.iterkeys()]
        finally:
            box.close()

    async def links(self) -> dict[str, str]:
        """The links of the newest mail, by the letter of their path."""
        mail = (await self.mails())[-1]
        html = mail.get_body(("html",)).get_content()
        found = [*re.findall(r'(?:href|src)="([^"]+)"', html), str(mail["List-Unsubscribe"]).strip("<>")]
        return {urlsplit(url).path.split("/")[2]: url for url in found}

    async def call(self, url: str, method: str = "GET", **more: Any) -> tuple[int, Mapping[str, str], str]:
        """A request, as a reader's program makes it, that follows nothing."""
        headers = {"User-Agent": BROWSER, **more.pop("headers", {})}
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
            return answer.status, answer.headers, await answer.text(errors="replace")

    async def user(self) -> dict[str, Any]:
        await self.node.quiesce()
        found: dict[str, Any] = await self.node.ask("user", {"external_id": "ann"})
        return found

    async def told(self, kind: str = "") -> list[dict[str, Any]]:
        """The export records of a kind of engagement, or all but behaviours."""
        await self.node.quiesce()
        rows = [decode_row(record.value) for _, record in await records(self.node, "currents")]
        wanted = f"users.messages.email.{kind}" if kind else "users.messages"
        return [row for row in rows if str(row["event_type"]).startswith(wanted)]

    async def appended(self) -> int:
        """Records in the events topic."""
        return len(await records(self.node, "events"))


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[Reader]:
    """Ann has got a mail."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    clock = ManualClock(NOW_MS)
    address = f"127.0.0.1:{free_port()}"
    node = Node(
        load_settings(environment(tmp_path / "data", http=address, workspace=workspace, api_key="k" * 20)), clock
    )
    node.wire(door=True)
    await node.start()
    ann = {"type": "attributes", "external_id": "ann", "email": "ann@example.com", "first_name": "Ann"}
    await process(node, ann, event("ann"))
    clock.advance(60_000)
    async with aiohttp.ClientSession() as session:
        yield Reader(node, session, clock)
    await node.stop()


async def test_a_mail_is_opened_and_clicked(reader: Reader) -> None:
    """The pixel is an image that nobody keeps, the link leads to its target, and both are told once with their ids."""
    links = await reader.links()
    status, headers, _ = await reader.call(links["o"])
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/gif", "no-store")
    status, headers, _ = await reader.call(links["c"])
    assert (status, headers["Location"]) == (302, "https://shop.example/?a=1&b=2")
    assert headers["Referrer-Policy"] == "no-referrer"

    (sent,), (opened,), (clicked,) = [await reader.told(kind) for kind in ("Send", "Open", "Click")]
    assert opened["dispatch_id"] == clicked["dispatch_id"] == sent["dispatch_id"]
    assert opened["campaign_id"] == sent["campaign_id"]
    assert (opened["user_agent"], "machine_open" in opened) == (BROWSER, False)
    assert clicked["url"] == "https://shop.example/?a=1&b=2"
    assert (await reader.user())["engaged"]["hello"]["clicks"] == 1


async def test_head_counts_nothing(reader: Reader) -> None:
    """Whoever only asks for headers gets them, and nothing is appended."""
    links, before = await reader.links(), await reader.appended()
    for letter, wanted in (("o", 200), ("c", 302), ("u", 200)):
        assert (await reader.call(links[letter], "HEAD"))[0] == wanted

    assert await reader.appended() == before


@pytest.mark.parametrize(
    ("agent", "headers", "later_ms", "machine"),
    [
        (BROWSER, {}, 0, False),
        ("Mozilla/5.0", {}, 3_600_000, True),
        (GOOGLE, {}, -58_000, True),
        (GOOGLE, {}, 3_600_000, False),
        (BROWSER, {"Sec-Purpose": "prefetch;prerender"}, 0, True),
        ("", {}, 0, True),
        ("Barracuda Sentinel", {}, 0, True),
    ],
)
async def test_opens_of_machines_are_marked(
    reader: Reader, agent: str, headers: dict[str, str], later_ms: int, machine: bool
) -> None:
    """What Apple, prefetchers, scanners and proxies ahead of the reader load counts as an open by a machine."""
    reader.clock.advance(later_ms)
    await reader.call((await reader.links())["o"], headers={"User-Agent": agent, **headers})

    (opened,) = await reader.told("Open")
    assert (opened.get("machine_open") == "true") is machine


async def test_one_click_unsubscribes(reader: Reader) -> None:
    """A mail program's POST of RFC 8058, in either encoding, unsubscribes without a page in between or a redirect."""
    url = (await reader.links())["u"]
    status, headers, _ = await reader.call(url, "POST", data={"List-Unsubscribe": "One-Click"})
    assert (status, "Location" in headers, "Set-Cookie" in headers) == (200, False, False)
    assert (await reader.user())["attributes"]["email_subscribe"] == "unsubscribed"
    (told,) = await reader.told("Unsubscribe")
    assert told["campaign_name"] == "hello"

    form = aiohttp.FormData({"List-Unsubscribe": "One-Click"}, default_to_multipart=True)
    assert (await reader.call(url, "POST", data=form))[0] == 200
    assert len(await reader.told("Unsubscribe")) == 1


async def test_looking_unsubscribes_nobody(reader: Reader) -> None:
    """GET, HEAD and a POST that is neither one click nor our button leave the subscription as it is."""
    url, before = (await reader.links())["u"], await reader.appended()
    status, headers, text = await reader.call(url)
    assert (status, 'method="post"' in text, "script" in text) == (200, True, False)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert (await reader.call(url, "HEAD"))[0] == 200
    for data in (None, {"List-Unsubscribe": "Maybe"}, {"confirm": "no"}, b"\xff" * 100):
        assert (await reader.call(url, "POST", data=data))[0] == 400
    assert (await reader.call(url, "POST", data="confirm=yes", headers={"Content-Type": "text/plain"}))[0] == 400
    assert await reader.appended() == before

    assert (await reader.call(url, "POST", data={"confirm": "yes"}))[0] == 200
    assert (await reader.user())["attributes"]["email_subscribe"] == "unsubscribed"


async def test_an_unsubscribed_user_gets_no_more(reader: Reader) -> None:
    """The next message after an unsubscribe is not sent."""
    await reader.call((await reader.links())["u"], "POST", data={"List-Unsubscribe": "One-Click"})
    await process(reader.node, event("ann"))

    assert len(await reader.mails()) == 1


async def test_export_files_hold_engagements(reader: Reader) -> None:
    """Opens, clicks and unsubscribes are read back by another Avro reader, each with the dispatch of its mail."""
    links = await reader.links()
    for letter in "oc":
        await reader.call(links[letter])
    await reader.call(links["u"], "POST", data={"List-Unsubscribe": "One-Click"})
    await reader.node.quiesce()
    await reader.node.export.flush()
    found: dict[str, list[Any]] = {}
    for path in (reader.node.settings.data / "exports").glob("event_type=*/*/*.avro"):
        with path.open("rb") as file:
            found.setdefault(path.parts[-3].rpartition(".")[2], []).extend(fastavro.reader(file))

    assert {name: len(rows) for name, rows in found.items()} == {
        "Send": 1,
        "Open": 1,
        "Click": 1,
        "Unsubscribe": 1,
        "GlobalStateChange": 1,
        "CustomEvent": 1,
    }
    (sent,), (opened,), (clicked,), (left,) = (found[name] for name in ("Send", "Open", "Click", "Unsubscribe"))
    assert sent["dispatch_id"] == opened["dispatch_id"] == clicked["dispatch_id"] == left["dispatch_id"]
    assert (clicked["url"], clicked["is_suspected_bot_click"]) == ("https://shop.example/?a=1&b=2", False)
    assert (opened["user_agent"], opened["machine_open"]) == (BROWSER, None)


async def test_preferences_are_chosen_without_a_script(reader: Reader) -> None:
    """The page is a plain form; each of its choices becomes the user's state, and no other value does."""
    claims = Claims("ab" * 16, "hello", "", "email", "ann", NOW_MS)
    url = f"{reader.base}/t/p/{token(reader, 'preferences', claims)}"
    status, _, text = await reader.call(url)
    assert (status, "<script" in text, text.count('name="state"')) == (200, False, 3)
    for state in ("unsubscribed", "opted_in", "subscribed"):
        assert (await reader.call(url, "POST", data={"state": state}))[0] == 200
        assert (await reader.user())["attributes"]["email_subscribe"] == state
    before = await reader.appended()
    for data in ({"state": "owner"}, {}, {"state": "unsubscribe"}):
        assert (await reader.call(url, "POST", data=data))[0] == 400
    assert await reader.appended() == before


def token(reader: Reader, kind: TokenKind, claims: Claims, url: str = "") -> str:
    """A token that the node's own key has signed."""
    key = (reader.node.settings.data / "signing.key").read_text().strip().encode()
    return sign((key,), claims, kind, url)


async def test_forged_links_lead_nowhere(reader: Reader) -> None:
    """A changed token, one of another kind or another key's is not found, without a redirect or a record."""
    links, before = await reader.links(), await reader.appended()
    claims = Claims("ab" * 16, "hello", "", "email", "ann", NOW_MS)
    evil = sign((b"e" * 32,), claims, "click", "https://evil.example")
    clicks = links["c"].rpartition("/")[2]
    flipped = clicks[:-1] + ("A" if clicks[-1] != "A" else "B")
    for letter, forged in (
        *(("c", evil), ("c", flipped), ("c", clicks[:-4]), ("c", "x"), ("c", "%0d%0aLocation:x"), ("c", "x" * 7_000)),
        *((letter, links[other].rpartition("/")[2]) for letter in "ocup" for other in "ocu" if letter != other),
    ):
        status, headers, text = await reader.call(f"{reader.base}/t/{letter}/{forged}")
        assert (status, "Location" in headers) == (404, False)
        assert "evil" not in text
    for letter in "up":
        url = f"{reader.base}/t/{letter}/{clicks}"
        assert (await reader.call(url, "POST", data={"confirm": "yes", "state": "unsubscribed"}))[0] == 404

    assert await reader.appended() == before


async def test_a_mail_that_cannot_be_counted_works(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the log takes nothing, images are shown and clicks lead on, and no choice is confirmed that is not kept."""
    links = await reader.links()
    lost = metrics.TRACKING_LOST.labels("click")._value.get()

    async def refuse(outputs: list[Output]) -> None:
        raise OutsideFailing("no broker")

    monkeypatch.setattr(reader.node.log, "append", refuse)
    assert (await reader.call(links["o"]))[0] == 200
    assert (await reader.call(links["c"]))[1]["Location"] == "https://shop.example/?a=1&b=2"
    status, headers, text = await reader.call(links["u"], "POST", data={"List-Unsubscribe": "One-Click"})
    assert (status, "Retry-After" in headers, "unsubscribed" in text.lower()) == (503, True, False)
    assert metrics.TRACKING_LOST.labels("click")._value.get() == lost + 1


async def test_one_mail_s_links_fill_no_log(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many hits of one message in a minute, readers are still served, and nothing more is appended."""
    monkeypatch.setattr(hits, "HITS_MAX", 3)
    monkeypatch.setattr(hits, "CHOICES_MAX", 1)
    links, before = await reader.links(), await reader.appended()
    for _ in range(5):
        assert (await reader.call(links["c"]))[0] == 302
    assert await reader.appended() == before + 3
    assert (await reader.call(links["u"], "POST", data={"confirm": "yes"}))[0] == 200
    assert (await reader.call(links["u"], "POST", data={"confirm": "yes"}))[0] == 429
    reader.clock.advance(60_000)
    await reader.call(links["c"])
    assert await reader.appended() == before + 5


async def test_large_forms_are_refused(reader: Reader) -> None:
    """A form beyond a few kilobytes is refused while it is small."""
    url, before = (await reader.links())["u"], await reader.appended()
    assert (await reader.call(url, "POST", data={"confirm": "yes", "x": "y" * 100_000}))[0] == 413

    assert await reader.appended() == before


async def test_forms_are_counted_before_they_are_read(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a message's forms of a minute none is read, also where those before it held nothing."""
    monkeypatch.setattr(hits, "CHOICES_MAX", 3)
    url = (await reader.links())["u"]
    multipart = {"Content-Type": "multipart/form-data; boundary=" + "(" * 150}
    for _ in range(3):
        assert (await reader.call(url, "POST", data=b"x", headers=multipart))[0] == 400

    def read_no_more(content_type: str, body: bytes) -> dict[str, str]:
        raise AssertionError("a form beyond the limit was read")

    monkeypatch.setattr(tracking, "read_form", read_no_more)
    status, headers, _ = await reader.call(url, "POST", data={"confirm": "yes"})
    assert (status, headers["Retry-After"]) == (429, "5")


def test_hits_forget_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered of hits is bounded, however many messages are opened."""
    monkeypatch.setattr(hits, "MESSAGES_MAX", 10)
    counted = hits.Hits(ManualClock(NOW_MS))
    for number in range(1_000):
        counted.allow(str(number))

    assert len(counted._counts) == 10


async def test_the_door_of_links_has_a_key_of_the_folder(reader: Reader) -> None:
    """On the embedded log the signing key is made once, for its owner alone, and kept over restarts."""
    path = reader.node.settings.data / "signing.key"

    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text().strip()) == 64
    from agents.signing import signing_keys

    assert signing_keys(reader.node.settings) == (path.read_text().strip().encode(),)


async def test_without_keys_no_link_is_ours(tmp_path: Path) -> None:
    """A door that has no signing key finds no link, and a worker without one sends mails as they are written."""
    from aiohttp import web
    from aiohttp.test_utils import TestClient, TestServer

    app = web.Application()
    TrackingDoor(None, ManualClock(NOW_MS), ()).add_routes(app)  # type: ignore[arg-type]  # it appends nothing
    claims = Claims("ab" * 16, "hello", "", "email", "ann", NOW_MS)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get(f"/t/o/{sign((b'k' * 32,), claims, 'open')}")

    assert answer.status == 404
