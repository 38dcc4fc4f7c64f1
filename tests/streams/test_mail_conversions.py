"""Opens and clicks as conversions: of the campaign's own last mail, by a person, once."""

from typing import Any

import pytest

from streams.effects import CurrentsRecord
from streams.engagement import Claims, sign
from streams.sends import Send
from streams.times import format_time
from tests.driver import Driver
from tests.streams.mailboxes import Mailboxes
from tests.streams.test_campaigns import LOOKED, campaign, files

KEYS = (b"k" * 32,)
MAIL = {"channel": "email", "message": {"to": "{{ ${email_address} }}", "subject": "s", "text": "t"}}
WANTED = [{"name": "read", "opens": {}, "within": "10s"}, {"name": "followed", "clicks": {}, "within": "10s"}]


def mailing(name: str) -> dict[str, Any]:
    """A campaign whose mails are to be opened and clicked."""
    return campaign(name, LOOKED, **MAIL, re_eligible_after="0s", conversions=WANTED)


def engage(driver: Driver, mail: Send, kind: str, **more: object) -> None:
    """The mail is opened, or a link of it followed, now."""
    claims = Claims(mail.dispatch_id, mail.campaign, mail.variant, mail.channel, mail.user, mail.decided_ms)
    url = "https://a.example" if kind == "click" else ""
    token = sign(KEYS, claims, "open" if kind == "open" else "click", url)
    time = format_time(driver.now_ms)
    driver.send({"type": "engagement", "kind": kind, "token": token, "time": time, **more}, mail.user.encode())


def converted(driver: Driver) -> list[tuple[str, int]]:
    """Campaign and index of each conversion so far."""
    return [
        (str(each.fields["campaign_name"]), int(str(each.fields["conversion_behavior_index"])))
        for each in driver.effects
        if isinstance(each, CurrentsRecord) and each.event_type == "users.campaigns.Conversion"
    ]


@pytest.fixture
def driver() -> Driver:
    """Ann has got a mail of each of two campaigns."""
    found = Driver(files(mailing("a"), mailing("b")), keys=KEYS)
    look(found)
    return found


def look(driver: Driver) -> None:
    """Ann does what both campaigns wait for."""
    driver.send({"type": "event", "external_id": "ann", "name": "look", "time": format_time(driver.now_ms)})


def test_a_mail_converts_its_own_campaign_once(driver: Driver) -> None:
    """However often it is opened and clicked, each counts once, for the campaign of the mail alone."""
    mail = driver.sends[0]
    for kind in ("open", "open", "click", "click", "open"):
        engage(driver, mail, kind)

    assert converted(driver) == [("a", 0), ("a", 1)]
    assert set(driver.user("ann").windows) == {"b"}


def test_no_machine_converts(driver: Driver) -> None:
    """A prefetched image and a scanner's click are no person's."""
    engage(driver, driver.sends[0], "open", machine=True)
    engage(driver, driver.sends[0], "click", machine=True)

    assert converted(driver) == []


def test_an_earlier_mail_does_not_convert_a_later_entry(driver: Driver) -> None:
    """Conversions are those of the last entry: the first mail, opened behind the second, says nothing of it."""
    first = driver.sends[0]
    driver.advance(1_000)
    look(driver)
    second = driver.sends[2]
    engage(driver, first, "open")
    assert (second.campaign, converted(driver)) == ("a", [])
    engage(driver, second, "open")

    assert converted(driver) == [("a", 0)]


@pytest.mark.parametrize(("after_ms", "counts"), [(9_999, 1), (10_000, 0)])
def test_the_window_ends(driver: Driver, after_ms: int, counts: int) -> None:
    """What comes when the window is over does not count."""
    driver.advance(after_ms)
    engage(driver, driver.sends[0], "click")

    assert len(converted(driver)) == counts


def test_a_mail_to_the_anonymous_user_converts_the_known_one() -> None:
    """A mail decided before the merge and opened behind it converts, for its entry moved with the user."""
    world = Mailboxes(files(mailing("a")), 3)
    world.keys = KEYS
    world.send({"type": "event", "device_id": "d1", "name": "look"})
    world.send({"type": "identify", "device_id": "d1", "external_id": "ann"})
    world.settle()
    (mail,) = [each for each in world.effects if isinstance(each, Send)]
    claims = Claims(mail.dispatch_id, mail.campaign, mail.variant, mail.channel, mail.user, mail.decided_ms)
    world.send({"type": "engagement", "kind": "open", "token": sign(KEYS, claims, "open"), "device_id": "d1"})
    world.settle()
    found = [each for each in world.effects if isinstance(each, CurrentsRecord)]

    assert [each.fields["external_user_id"] for each in found if each.event_type.endswith("Conversion")] == ["ann"]
