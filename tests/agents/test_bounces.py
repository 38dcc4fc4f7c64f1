"""Bounces end to end: refused at once or reported later, proven or refused, and what they mean for the next mail."""

from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agents.delivery.providers import providers_of
from agents.node import Node
from agents.signing import signing_keys
from agents.web import bounces
from agents.web.bounces import take_bounces
from channels.channel import Request
from channels.smtp import Smtp
from config.clock import SystemClock
from config.settings import SettingsError, load_settings
from streams.engagement import Claims, SigningKeys, read_return_path, return_path, sign
from streams.errors import BadSetting
from streams.exports import decode_row
from streams.ingest.mail_report import MailReport, read_mail_report
from tests.agents.deliveries import delivering
from tests.agents.nodes import environment, event, process, records, write_workspace
from tests.channels.mail_server import MailServer, mail_server
from tests.streams.ingest.test_mail_report import BOUNCE, COMPLAINT, EXPIRED, NESTED, VERP, WITHOUT_MAIL

FILES = {
    "campaigns/hello.yaml": {
        "name": "hello",
        "trigger": {"event": {"name": "like"}},
        "re_eligible_after": "0s",
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "s", "text": "t", "from": "Me <me@shop.example>"},
    }
}


CLAIMS = Claims("ab" * 16, "hello", "", "email", "ann", 0)


class Site:
    """A node that mails by a server which misbehaves as it is told."""

    def __init__(self, node: Node, server: MailServer) -> None:
        self.node = node
        self.server = server
        self.keys = signing_keys(node.settings)

    async def mail(self, address: str) -> None:
        """Let ann, who has this address, be sent a mail."""
        ann = {"type": "attributes", "external_id": "ann", "email": address}
        await process(self.node, ann, event("ann"))

    async def told(self) -> list[dict[str, Any]]:
        """The export records about mails."""
        await self.node.quiesce()
        rows = [decode_row(record.value) for _, record in await records(self.node, "currents")]
        return [row for row in rows if str(row["event_type"]).startswith("users.messages")]

    async def kinds(self) -> list[str]:
        return [str(row["event_type"]).rpartition(".")[2] for row in await self.told()]

    async def take(self, *mails: str) -> dict[str, int]:
        """The counts of `bounces -` for each of these, added."""
        total: dict[str, int] = {}
        for mail in mails:
            found = await take_bounces(self.node, "-", BytesIO(mail.encode()), self.keys)
            total = {name: total.get(name, 0) + count for name, count in found.items()}
        return {name: count for name, count in total.items() if count}

    @property
    def sent(self) -> str:
        """The newest mail as the server took it."""
        return self.server.taken[-1][2].decode()

    def proof(self) -> str:
        """The token in the newest mail's headers."""
        return self.sent.partition("X-Headrace-Proof: ")[2].partition("\r\n")[0]

    async def user(self) -> dict[str, Any]:
        await self.node.quiesce()
        found: dict[str, Any] = await self.node.ask("user", {"external_id": "ann"})
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Mails go to a real server, and bounces to us."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    async with mail_server() as server:
        settings = {
            "smtp": f"smtp://127.0.0.1:{server.port}",
            "tracking_url": "https://t.example",
            "bounce_address": "bounces@mail.example.com",
        }
        node = Node(load_settings(environment(tmp_path / "data", workspace=workspace, **settings)), SystemClock())
        node.wire()
        await node.start()
        yield Site(node, server)
        await node.stop()


async def test_a_mail_refused_for_good_is_not_tried_again(site: Site) -> None:
    """A 550 for the recipient is a bounce; the next mail to that address is aborted unsent, one to another is sent."""
    await site.mail("rcpt-550@shop.example")
    assert await site.kinds() == ["Bounce"]
    blocked = (await site.user())["address_blocked"]
    assert (blocked["address"], blocked["why"]) == ("rcpt-550@shop.example", "hard_bounced")

    connections = site.server.connections
    await site.mail("rcpt-550@shop.example")
    assert await site.kinds() == ["Bounce", "Abort"]
    assert (await site.told())[-1]["abort_type"] == "hard_bounced"
    assert site.server.connections == connections

    await site.mail("ok@shop.example")
    assert await site.kinds() == ["Bounce", "Abort", "Send", "Delivery"]


async def test_a_mail_refused_for_its_content_costs_no_address(site: Site) -> None:
    """A 554 after the mail itself ends that mail, and the next one to the same address goes."""
    await site.mail("end-554@shop.example")
    assert "address_blocked" not in await site.user()
    await site.mail("end-554@shop.example")

    assert await site.kinds() == ["Bounce", "Bounce"]


async def test_bounces_come_back_to_a_signed_sender(site: Site) -> None:
    """The envelope's sender names the dispatch, signed; the mail's own From stays, and its headers carry a proof."""
    await site.mail("ok@shop.example")
    sender, _, content = site.server.taken[-1]
    name, _, domain = sender.partition("@")
    sent, _ = await site.told()

    assert domain == "mail.example.com"
    assert len(name) <= 64
    assert read_return_path(site.keys, name.removeprefix("bounces+")) == sent["dispatch_id"]
    assert b"From: Me <me@shop.example>" in content


async def test_a_report_that_proves_itself_bounces(site: Site) -> None:
    """A report with the mail's token is a bounce of that dispatch, once however often it is read."""
    await site.mail("ann@example.net")
    report = BOUNCE.replace("the-token", site.proof())
    assert await site.take(report, report) == {"mails": 2, "bounces": 2}

    assert await site.kinds() == ["Send", "Delivery", "Bounce"]
    sent, delivered, bounced = await site.told()
    assert bounced["dispatch_id"] == delivered["dispatch_id"] == sent["dispatch_id"]
    assert bounced["email_address"] == "ann@example.net"
    assert "User unknown" in bounced["bounce_reason"]
    assert (await site.user())["address_blocked"]["address"] == "ann@example.net"
    assert (await site.user())["attributes"].get("email_subscribe") is None


async def test_a_report_without_the_mail_is_known_by_its_return_path(site: Site) -> None:
    """Where a server returns nothing of the mail, the address that the report was sent to tells the dispatch."""
    await site.mail("ann@example.net")
    sent, _ = await site.told()
    report = WITHOUT_MAIL.replace(VERP, return_path(site.keys, sent["dispatch_id"]))
    assert await site.take(report) == {"mails": 1, "bounces": 1}

    assert await site.kinds() == ["Send", "Delivery", "Bounce"]


async def test_a_mail_given_up_for_now_leaves_the_address_good(site: Site) -> None:
    """A report of an expired mail is a soft bounce, and the next mail goes."""
    await site.mail("ann@example.net")
    assert await site.take(EXPIRED.replace("the-token", site.proof())) == {"mails": 1, "soft_bounces": 1}
    await site.mail("ann@example.net")

    assert await site.kinds() == ["Send", "Delivery", "SoftBounce", "Send", "Delivery"]


async def test_a_complaint_ends_mailing(site: Site) -> None:
    """A complaint is told, unsubscribes, and its address is mailed no more even if the user subscribes again."""
    await site.mail("ann@example.net")
    assert await site.take(COMPLAINT.replace("the-token", site.proof())) == {"mails": 1, "complaints": 1}
    assert await site.kinds() == ["Send", "Delivery", "MarkAsSpam"]
    assert (await site.user())["attributes"]["email_subscribe"] == "unsubscribed"

    await process(
        site.node, {"type": "attributes", "external_id": "ann", "email_subscribe": "subscribed"}, event("ann")
    )
    assert (await site.told())[-1]["abort_type"] == "marked_as_spam"


FORGED: dict[str, Callable[[SigningKeys], str]] = {
    "no proof": lambda keys: BOUNCE.replace(VERP, "x").replace("the-token", ""),
    "foreign proof": lambda keys: BOUNCE.replace("the-token", sign((b"e" * 32,), CLAIMS, "bounce")),
    "another kind": lambda keys: BOUNCE.replace("the-token", sign(keys, CLAIMS, "open")),
    "foreign path": lambda keys: WITHOUT_MAIL,
    "unknown dispatch": lambda keys: WITHOUT_MAIL.replace(VERP, return_path(keys, CLAIMS.dispatch_id)),
}


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_report_is_refused(site: Site, name: str) -> None:
    """Without a token of ours for just this, a report is counted as refused and appends nothing."""
    await site.mail("ok@shop.example")
    before = len(await records(site.node, "events"))
    assert await site.take(FORGED[name](site.keys)) == {"mails": 1, "refused": 1}

    assert len(await records(site.node, "events")) == before


async def test_a_maildir_is_taken_once(site: Site, tmp_path: Path) -> None:
    """New mails of a maildir are taken and marked as seen, reports and others; a second run finds nothing new."""
    await site.mail("ann@example.net")
    folder = tmp_path / "maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "new" / "1.a").write_text(BOUNCE.replace("the-token", site.proof()))
    (folder / "new" / "2.b").write_text("Subject: hello\n\nI am a person")
    found = await take_bounces(site.node, str(folder), BytesIO(), site.keys)
    again = await take_bounces(site.node, str(folder), BytesIO(), site.keys)

    assert {name: count for name, count in found.items() if count} == {"mails": 2, "bounces": 1, "no_report": 1}
    assert not any(again.values())
    assert sorted(path.name for path in (folder / "cur").iterdir()) == ["1.a:2,S", "2.b:2,S"]


@pytest.mark.parametrize("is_known", [True, False], ids=["nested", "unforeseen"])
async def test_no_mail_blocks_a_maildir(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """A mail made to break its reader, in a way that is known or not, is passed over and marked as seen like any."""
    await site.mail("ann@example.net")
    folder = tmp_path / "maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "new" / "1.a").write_bytes(NESTED)
    (folder / "new" / "2.b").write_text(BOUNCE.replace("the-token", site.proof()))
    if not is_known:

        def read(data: bytes) -> MailReport | None:
            if data == NESTED:
                raise IndexError("a new bug")
            return read_mail_report(data)

        monkeypatch.setattr(bounces, "read_mail_report", read)
    found = await take_bounces(site.node, str(folder), BytesIO(), site.keys)

    assert {name: count for name, count in found.items() if count} == {"mails": 2, "bounces": 1, "no_report": 1}
    assert sorted(path.name for path in (folder / "cur").iterdir()) == ["1.a:2,S", "2.b:2,S"]


async def test_an_mbox_is_taken_whole(site: Site, tmp_path: Path) -> None:
    """Every mail of an mbox is read, and the file stays as it is."""
    await site.mail("ann@example.net")
    path = tmp_path / "box"
    report = BOUNCE.replace("the-token", site.proof()).replace("\r\n", "\n")
    path.write_text(f"From x\n{report}\nFrom y\nSubject: hello\n\nhi\n")
    found = await take_bounces(site.node, str(path), BytesIO(), site.keys)

    assert {name: count for name, count in found.items() if count} == {"mails": 2, "bounces": 1, "no_report": 1}


async def test_a_dead_address_is_looked_up_before_each_attempt(tmp_path: Path) -> None:
    """An address that is found dead between two attempts gets no second one."""
    from channels.channel import Receipt
    from streams.profiles.row import Reachability, encode_row, new_user
    from tests.agents.deliveries import START_MS, Steered

    mail = Steered()
    mail.answer = lambda request: Receipt(request.dispatch_id, "retry", "421 later")
    async with delivering(tmp_path, email=mail) as rig:
        await rig.record(rig.send(1))
        await rig.until(lambda: rig.states == {"retry": 1})
        row = new_user(START_MS)
        row.reach = Reachability("ANN@b.c", "hard_bounced", START_MS)
        batch = rig.store.batch()
        batch.put("users", b"\0\0ann", encode_row(row))
        rig.store.write(batch)
        rig.clock.advance(2_000)
        await rig.until(lambda: rig.delivery.idle)

        assert rig.dispatch(1).reason == "hard_bounced"
    assert len(mail.asked) == 1


@pytest.mark.parametrize("address", ["a-very-long-name@b.c", "a+b@c.d", "a@b c", "a b@c.d", "@b.c", "a@b\r\nX: y"])
def test_a_return_path_has_room_for_its_sign(tmp_path: Path, address: str) -> None:
    """An address whose name leaves no room, or that is none, is refused by the setting."""
    with pytest.raises(SettingsError, match="HEADRACE_BOUNCE_ADDRESS"):
        load_settings(environment(tmp_path, bounce_address=address))


def test_a_return_path_needs_a_key(tmp_path: Path) -> None:
    """Without a signing key bounces could not be told from forgeries, so the worker does not start."""
    settings = load_settings(environment(tmp_path, bounce_address="b@c.d", smtp="smtp://127.0.0.1:1"))
    with pytest.raises(BadSetting, match="HEADRACE_SIGNING_KEY"):
        providers_of(settings)
    smtp = providers_of(settings, (b"k" * 32,))["email"]
    assert isinstance(smtp, Smtp)
    assert smtp._sender(Request("ab" * 16, "x@y.z", b"")).startswith("b+")
