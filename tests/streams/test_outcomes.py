"""Outcomes of several attempts: each is told once, in order, until the last."""

from tests.driver import Driver

MAIL = {
    "campaigns/mail.yaml": {
        "name": "mail",
        "trigger": {"event": {"name": "looked"}},
        "channel": "email",
        "message": {"to": "{{ ${email_address} }}", "subject": "s", "text": "t"},
    }
}


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
    told = [one for one in driver.currents if one.event_type.startswith("users.messages")]

    assert [one.event_type.rpartition(".")[2] for one in told] == kinds
    assert len({one.fields["id"] for one in told}) == 3
