"""Outcomes of several attempts: each is told once, in order, until the last."""

from typing import Any, Final

import pytest

from tests.driver import Driver

MAIL: Final[dict[str, Any]] = {
    "campaigns/mail.yaml": {
        "name": "mail",
        "trigger": {"event": {"name": "looked"}},
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "s", "text": "t"},
    }
}


@pytest.mark.parametrize("told", range(1, 4))
def test_a_delivery_is_told_once(told: int) -> None:
    """A mail that a server took is a Send and one Delivery of the same dispatch and time, however often it is told."""
    driver = Driver(MAIL)
    driver.send({"type": "event", "external_id": "ann", "name": "looked", "time": "2001-09-09T01:46:40Z"})
    (send,) = driver.sends
    driver.outcome(send, "retry")
    for _ in range(told):
        driver.outcome(send, attempt=2, delivered=True)
    driver.outcome(send, attempt=3, delivered=True)
    sent, delivered = driver.messages[1:]

    assert [one.event_type.rpartition(".")[2] for one in driver.messages] == ["Retry", "Send", "Delivery"]
    assert {**sent.fields, "id": ""} == {**delivered.fields, "id": ""}
    assert sent.fields["id"] != delivered.fields["id"]
    assert sent.time_ms == delivered.time_ms


@pytest.mark.parametrize(("channel", "delivered"), [("email", False), ("webhook", True)])
def test_what_no_mail_server_took_is_not_delivered(channel: str, delivered: bool) -> None:
    """A mail into the outbox, and a webhook, for which Currents has no such type, are only sent."""
    messages = {"email": MAIL["campaigns/mail.yaml"]["message"], "webhook": {"url": "https://a.example", "body": "x"}}
    driver = Driver(
        {"campaigns/mail.yaml": MAIL["campaigns/mail.yaml"] | {"channel": channel, "message": messages[channel]}}
    )
    driver.send({"type": "event", "external_id": "ann", "name": "looked", "time": "2001-09-09T01:46:40Z"})
    driver.outcome(driver.sends[0], delivered=delivered)

    assert [one.event_type for one in driver.messages] == [f"users.messages.{channel}.Send"]


def test_every_retry_is_told_once() -> None:
    """Each attempt that will be repeated is told once, in order, and the dispatch stays open until the last."""
    driver = Driver(MAIL)
    driver.send({"type": "event", "external_id": "ann", "name": "looked", "time": "2001-09-09T01:46:40Z"})
    (send,) = driver.sends
    kinds = ["Retry", "Retry", "Send"]
    for attempt in (1, 1, 2, 1, 2):
        driver.outcome(send, "retry", attempt=attempt)
        assert driver.user("ann").dispatches[send.dispatch_id].final_ms == 0
    driver.outcome(send, "held", attempt=1)
    assert driver.user("ann").dispatches[send.dispatch_id].outcome == "retry"
    driver.outcome(send, "held", attempt=3)
    driver.outcome(send, "sent", attempt=4)
    driver.outcome(send, "retry", attempt=5)
    told = driver.messages

    assert [one.event_type.rpartition(".")[2] for one in told] == kinds
    assert len({one.fields["id"] for one in told}) == 3
