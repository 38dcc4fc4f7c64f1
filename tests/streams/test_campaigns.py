"""Campaigns: who enters, when the send goes, and who never gets one."""

from typing import Any

from streams.times import DAY_MS
from tests.driver import Driver

MESSAGE = {"to": "{{ ${email_address} }}", "subject": "Hello", "text": "Hello"}
LIKE = {"type": "event", "external_id": "mel", "name": "like"}


def driver_of(**campaign: Any) -> Driver:
    """A driver with one campaign and the segment of those who liked within a day."""
    definition = {"name": "hello", "channel": "email", "message": MESSAGE, **campaign}
    segment = {"name": "recent", "filter": {"event": {"name": "like", "within": "1d"}}}
    return Driver({"campaigns/hello.yaml": definition, "segments/recent.yaml": segment})


def test_once_means_once() -> None:
    """Without re_eligible_after a user enters a campaign once, ever."""
    driver = driver_of(trigger={"event": {"name": "like"}})
    driver.send(LIKE)
    driver.advance(900 * DAY_MS)
    driver.send(LIKE)
    assert len(driver.sends) == 1


def test_eligible_again_exactly_at_the_edge() -> None:
    """A user is eligible again when now − last equals re_eligible_after, and not a millisecond before."""
    driver = driver_of(trigger={"event": {"name": "like"}}, re_eligible_after="10d")
    driver.send(LIKE)
    driver.advance(10 * DAY_MS - 1)
    driver.send(LIKE)
    assert len(driver.sends) == 1
    driver.advance(1)
    driver.send(LIKE)
    assert len(driver.sends) == 2


def test_leaving_triggers_at_the_very_millisecond() -> None:
    """A segment_left trigger decides at the time the window ends, however late the tick comes."""
    driver = driver_of(trigger={"segment_left": "recent"})
    began = driver.now_ms
    driver.send(LIKE)
    driver.advance(5 * DAY_MS)
    assert [send.decided_ms for send in driver.sends] == [began + DAY_MS]


def test_the_delay_counts_from_the_event() -> None:
    """A delayed send is decided at the event's own time plus the delay."""
    driver = driver_of(trigger={"event": {"name": "like"}}, delay="2h")
    began = driver.now_ms
    driver.send(LIKE)
    assert driver.sends == []
    driver.advance(DAY_MS)
    assert [send.decided_ms for send in driver.sends] == [began + 7_200_000]


def test_audience_is_the_state_before_the_event() -> None:
    """For an event trigger the audience is asked before the event is applied."""
    driver = driver_of(trigger={"event": {"name": "like"}}, audience={"not": {"event": {"name": "like"}}})
    driver.send(LIKE)
    assert len(driver.sends) == 1


def test_paused_means_nothing_now_or_later() -> None:
    """While a campaign is paused nobody enters, and resuming sends nothing for that time."""
    driver = driver_of(trigger={"event": {"name": "like"}})
    driver.pause("hello")
    driver.send(LIKE)
    driver.pause()
    driver.advance(DAY_MS)
    assert driver.sends == []


def test_the_unsubscribed_are_never_mailed_and_stay_eligible() -> None:
    """An unsubscribed user gets nothing, and enters once consent is back."""
    driver = driver_of(trigger={"event": {"name": "like"}})
    driver.send({"type": "attributes", "external_id": "mel", "email_subscribe": "unsubscribed"})
    driver.send(LIKE)
    assert driver.sends == []
    driver.send({"type": "attributes", "external_id": "mel", "email_subscribe": "opted_in"})
    driver.send(LIKE)
    assert len(driver.sends) == 1


def test_an_event_id_is_applied_once_within_a_day() -> None:
    """The same id twice within 24 h counts once, and after that again."""
    driver = driver_of(trigger={"event": {"name": "like"}})
    driver.send({**LIKE, "id": "one"})
    driver.advance(DAY_MS - 1_000)
    driver.send({**LIKE, "id": "one"})
    assert driver.user("mel").events["like"].count == 1
    driver.advance(2 * DAY_MS)
    driver.send({**LIKE, "id": "one"})
    assert driver.user("mel").events["like"].count == 2


def test_a_final_outcome_is_never_replaced() -> None:
    """The first final outcome makes one export record; whatever is told later changes nothing."""
    driver = driver_of(trigger={"event": {"name": "like"}})
    driver.send(LIKE)
    (send,) = driver.sends
    assert len(driver.outcome(send, "sent")) == 1
    assert driver.outcome(send, "failed") == []
    assert driver.user("mel").dispatches[send.dispatch_id].outcome == "sent"
