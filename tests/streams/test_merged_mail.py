"""What comes of a mail that went to a device's user who has been merged since."""

import pytest

from streams.engagement import Claims, EngagementKind, sign
from tests.driver import Driver

HOUR_MS = 3_600_000
KEYS = (b"k" * 32,)
MAIL = {"to": "{{${email_address}}}", "subject": "s", "text": "t"}
CAMPAIGN = {"name": "c", "channel": "email", "trigger": {"event": {"name": "like"}}, "message": MAIL}


@pytest.mark.parametrize("kind", ["unsubscribe", "complaint"])
def test_what_comes_of_a_mail_is_the_first_users(kind: EngagementKind) -> None:
    """Who unsubscribes by the mail of a device that another has by now is who got it, and the other stays as it was."""
    driver = Driver({"campaigns/c.yaml": CAMPAIGN}, keys=KEYS)
    driver.send({"type": "attributes", "device_id": "d1", "email": "ann@x.example"})
    driver.send({"type": "event", "name": "like", "device_id": "d1"})
    driver.send({"type": "identify", "device_id": "d1", "external_id": "ann"})
    driver.now_ms += HOUR_MS
    driver.send({"type": "attributes", "external_id": "bob", "email": "bob@x.example"})
    driver.send({"type": "identify", "device_id": "d1", "external_id": "bob"})
    (send,) = driver.sends
    bob = driver.user("bob")
    claims = Claims(send.dispatch_id, send.campaign, send.variant, "email", send.user, send.decided_ms)
    token = sign(KEYS, claims, "bounce" if kind == "complaint" else "unsubscribe")
    driver.now_ms += HOUR_MS
    driver.send({"type": "engagement", "token": token, "kind": kind})

    assert driver.user("ann").attributes["email_subscribe"] == "unsubscribed"
    assert (driver.user("bob").attributes, driver.user("bob").reach) == (bob.attributes, bob.reach)
