"""When a campaign sends, to whom, and when it never does."""

from collections.abc import Mapping
from typing import Any

import pytest

from streams.definitions import read_definitions
from streams.ids import dispatch_id
from streams.mailbox import OutcomeKind
from streams.times import DAY_MS, HOUR_MS, format_time
from tests.driver import Driver

START_MS = 1_000_000_000_000
BUYERS = {"name": "buyers", "filter": {"purchases": {"at_least": 1}}}
RECENT = {"name": "recent", "filter": {"event": {"name": "look", "within": "10s"}}}
LOOKED: Mapping[str, Any] = {"event": {"name": "look"}}


def campaign(name: str, trigger: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A campaign that writes a line to the log, unless told otherwise."""
    return {"name": name, "trigger": trigger, "channel": "log", "message": {"text": "hello"}, **more}


def mail(name: str, trigger: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A campaign that mails."""
    message = {"to": "{{ ${email_address} }}", "subject": "Hello", "text": "Hello"}
    return campaign(name, trigger, **{"channel": "email", "message": message, **more})


def files(*campaigns: Mapping[str, Any]) -> dict[str, Any]:
    """The workspace of the two segments and these campaigns."""
    segments = {f"segments/{one['name']}.yaml": one for one in (BUYERS, RECENT)}
    return {**segments, **{f"campaigns/{one['name']}.yaml": one for one in campaigns}}


def driver_of(*campaigns: Mapping[str, Any]) -> Driver:
    """A driver with that workspace."""
    return Driver(files(*campaigns))


def look(driver: Driver, user: str = "ann", ago_ms: int = 0, **properties: Any) -> None:
    """The user looks, `ago_ms` before now."""
    time = format_time(driver.now_ms - ago_ms)
    driver.send({"type": "event", "external_id": user, "name": "look", "time": time, "properties": properties})


def buy(driver: Driver, user: str = "ann", product: str = "cds") -> None:
    """The user buys one for a dollar."""
    driver.send({"type": "purchase", "external_id": user, "product_id": product, "currency": "USD", "price": 1})


def describe(driver: Driver, user: str = "ann", **attributes: Any) -> None:
    """The user's attributes are set."""
    driver.send({"type": "attributes", "external_id": user, **attributes})


def sent(driver: Driver) -> list[tuple[str, str, int]]:
    """Campaign, user and milliseconds since the start of every send."""
    return [(send.campaign, send.user, send.decided_ms - START_MS) for send in driver.sends]


def test_once() -> None:
    """Without re_eligible_after a user enters once, however often and however late it happens again."""
    driver = driver_of(campaign("c", LOOKED))
    for _ in range(3):
        look(driver)
        driver.advance(800 * DAY_MS)
    look(driver, "bob")

    assert [(name, user) for name, user, _ in sent(driver)] == [("c", "ann"), ("c", "bob")]


@pytest.mark.parametrize(("after_ms", "again"), [(59_999, False), (60_000, True), (60_001, True)])
def test_re_eligible_edge(after_ms: int, again: bool) -> None:
    """A user is eligible again exactly when now − last reaches re_eligible_after."""
    driver = driver_of(campaign("c", LOOKED, re_eligible_after="1m"))
    look(driver)
    driver.advance(after_ms)
    look(driver)

    assert sent(driver) == [("c", "ann", 0)] + ([("c", "ann", after_ms)] if again else [])


def test_re_eligibility_counts_from_the_last_entry() -> None:
    """A refused try does not push eligibility back, and after a new entry it counts from that one."""
    driver = driver_of(campaign("c", LOOKED, re_eligible_after="1m"))
    for _ in range(9):
        look(driver)
        driver.advance(20_000)

    assert [at_ms for _, _, at_ms in sent(driver)] == [0, 60_000, 120_000]


def test_eligibility_counts_from_the_decision() -> None:
    """With a delay eligibility counts from the entry, not from the send and not from its outcome."""
    driver = driver_of(campaign("c", LOOKED, delay="30s", re_eligible_after="1m"))
    look(driver)
    driver.advance(30_000)
    driver.outcome(driver.sends[0], "sent")
    driver.advance(30_000)
    look(driver)
    driver.advance(30_000)

    assert [at_ms for _, _, at_ms in sent(driver)] == [30_000, 90_000]


@pytest.mark.parametrize(
    ("ago_ms", "expected_ms"), [(0, 10_000), (4_000, 6_000), (9_999, 1), (10_000, 0), (15_000, 0), (-5_000, 10_000)]
)
def test_delay_counts_from_the_event(ago_ms: int, expected_ms: int) -> None:
    """A delay runs from the event's own time, is over at once for an old event, and never starts in the future."""
    driver = driver_of(campaign("c", LOOKED, delay="10s"))
    look(driver, ago_ms=ago_ms)
    if expected_ms:
        assert driver.advance(expected_ms - 1) == []
        driver.advance(60_000)

    assert sent(driver) == [("c", "ann", expected_ms)]


def test_delayed_sends_read_the_profile_when_due_and_the_event_as_it_was() -> None:
    """A delayed send carries the profile of its due time and the properties of the event that started it."""
    text = "{{ ${first_name} }} {{ event_properties.${page} }}"
    driver = driver_of(campaign("c", LOOKED, delay="10s", message={"text": text}))
    describe(driver, first_name="Ann")
    look(driver, page="home", other=1)
    describe(driver, first_name="Anna")
    look(driver, page="away")
    driver.advance(10_000)

    (send,) = driver.sends
    assert (send.profile, send.event_properties) == ({"first_name": "Anna"}, {"page": "home"})


def test_conditions_of_the_trigger() -> None:
    """Only events whose properties meet `where`, and purchases of the named product, start a campaign."""
    driver = driver_of(
        campaign("home", {"event": {"name": "look", "where": {"page": "home", "depth": {"over": 1}}}}),
        campaign("any_buy", {"purchase": {}}, re_eligible_after="0s"),
        campaign("tea", {"purchase": {"product": "tea"}}),
    )
    look(driver, page="home", depth=1)
    look(driver, page="away", depth=2)
    buy(driver, product="cds")
    assert [name for name, _, _ in sent(driver)] == ["any_buy"]

    look(driver, page="home", depth=2)
    buy(driver, product="tea")
    assert [name for name, _, _ in sent(driver)] == ["any_buy", "home", "any_buy", "tea"]


def test_audience_before_the_event() -> None:
    """For event and purchase triggers the audience is asked on the state before the event."""
    driver = driver_of(
        campaign("first_buy", {"purchase": {}}, audience={"not": {"segment": "buyers"}}),
        campaign("next_buy", {"purchase": {}}, audience={"purchases": {"at_least": 1}}),
        campaign("third_look", LOOKED, audience={"event": {"name": "look", "exactly": 2}}),
    )
    buy(driver)
    assert [name for name, _, _ in sent(driver)] == ["first_buy"]
    buy(driver)
    assert [name for name, _, _ in sent(driver)] == ["first_buy", "next_buy"]
    look(driver)
    look(driver)
    assert len(driver.sends) == 2
    look(driver)
    assert sent(driver)[-1] == ("third_look", "ann", 0)


def test_audience_after_the_event() -> None:
    """For segment and attribute triggers the audience is asked on the state after the event."""
    pro = {"attribute": {"path": "plan", "is": "pro"}}
    driver = driver_of(
        campaign("bought", {"segment_entered": "buyers"}, audience={"purchases": {"exactly": 1}}),
        campaign("not_yet", {"segment_entered": "buyers"}, audience={"purchases": {"at_most": 0}}),
        campaign("now_pro", {"attribute_changed": "plan"}, audience=pro),
        campaign("was_pro", {"attribute_changed": "plan"}, audience={"not": pro}),
    )
    buy(driver)
    describe(driver, plan="pro")

    assert [name for name, _, _ in sent(driver)] == ["bought", "now_pro"]


def test_segment_left_by_time() -> None:
    """Leaving by the clock alone starts a campaign at the millisecond of leaving, with the delay from there."""
    driver = driver_of(
        campaign("left", {"segment_left": "recent"}, audience={"not": {"segment": "recent"}}),
        campaign("later", {"segment_left": "recent"}, delay="1s"),
        campaign("entered", {"segment_entered": "recent"}),
    )
    look(driver, ago_ms=4_000)
    assert sent(driver) == [("entered", "ann", 0)]
    driver.advance(5_999)
    assert len(driver.sends) == 1
    driver.advance(60_000)

    assert sent(driver)[1:] == [("left", "ann", 6_000), ("later", "ann", 7_000)]


def test_attribute_changed() -> None:
    """Only a real change to a value starts it: not the same value again, not a deletion, not another attribute."""
    driver = driver_of(campaign("c", {"attribute_changed": "plan"}, re_eligible_after="0s"))
    for values, sends in (
        ({"other": 1}, 0),
        ({"plan": "free"}, 1),
        ({"plan": "free", "other": 2}, 1),
        ({"plan": "pro"}, 2),
        ({"plan": None}, 2),
        ({"plan": "pro"}, 3),
        ({"plan": 1}, 4),
        ({"plan": True}, 5),
    ):
        describe(driver, **values)
        assert len(driver.sends) == sends, values


def test_pause() -> None:
    """While paused nothing enters, and what happened or came due meanwhile is not made up for later."""
    driver = driver_of(campaign("c", LOOKED), campaign("slow", LOOKED, delay="10s"), campaign("other", LOOKED))
    look(driver, "early")
    driver.pause("c", "slow")
    look(driver)
    driver.advance(60_000)
    assert [(name, user) for name, user, _ in sent(driver)] == [
        ("c", "early"),
        ("other", "early"),
        ("other", "ann"),
    ]

    driver.pause()
    driver.advance(60_000)
    assert len(driver.sends) == 3
    look(driver)
    driver.advance(10_000)
    assert sent(driver)[3:] == [("c", "ann", 120_000), ("slow", "ann", 130_000)]


def test_pause_of_everything() -> None:
    """The one word for all campaigns pauses each of them, timers of segments go on."""
    driver = driver_of(campaign("c", LOOKED), campaign("left", {"segment_left": "recent"}))
    driver.pause("*")
    look(driver)
    driver.advance(20_000)

    assert sent(driver) == []
    assert [change.entered for change in driver.changes] == [True, False]


def test_unsubscribed_users_are_not_mailed_and_stay_eligible() -> None:
    """An unsubscribed user enters no mail campaign, does enter others, and is mailed once subscribed again."""
    driver = driver_of(mail("mail", LOOKED), campaign("line", LOOKED))
    describe(driver, email="ann@example.com", email_subscribe="unsubscribed")
    look(driver)
    assert [name for name, _, _ in sent(driver)] == ["line"]
    assert "mail" not in driver.user("ann").campaigns

    describe(driver, email_subscribe="subscribed")
    look(driver)
    assert [name for name, _, _ in sent(driver)] == ["line", "mail"]


def test_unsubscribing_before_the_delay_is_over() -> None:
    """Consent is asked again when a delay is over: who unsubscribed meanwhile is not mailed then or later."""
    driver = driver_of(mail("mail", LOOKED, delay="10s"))
    look(driver)
    describe(driver, email_subscribe="unsubscribed")
    driver.advance(10_000)
    describe(driver, email_subscribe="opted_in")
    driver.advance(60_000)

    assert driver.sends == []


def test_a_new_campaign_does_nothing_about_the_past() -> None:
    """A campaign that arrives later sends nothing for what users did or became before, only for what follows."""
    driver = driver_of()
    look(driver)
    buy(driver)
    describe(driver, plan="pro")
    driver.switch(
        read_definitions(
            files(
                campaign("looked", LOOKED),
                campaign("bought", {"segment_entered": "buyers"}),
                campaign("changed", {"attribute_changed": "plan"}),
                campaign("left", {"segment_left": "recent"}),
            )
        )
    )
    driver.advance(9_999)
    buy(driver)
    describe(driver, plan="pro")
    assert driver.sends == []

    driver.advance(1)
    look(driver)
    assert sent(driver) == [("left", "ann", 10_000), ("looked", "ann", 10_000)]


def test_dispatch_ids_say_what_they_mean() -> None:
    """A dispatch's id is made of campaign, user, life and entry: the same in two runs with other offsets."""
    ids = []
    for noise in (0, 5):
        driver = driver_of(campaign("c", LOOKED, re_eligible_after="1s"), campaign("d", LOOKED))
        for _ in range(noise):
            describe(driver, "someone", n=driver._offset)
        for _ in range(3):
            look(driver)
            driver.advance(1_000)
        look(driver, "bob")
        ids.append([send.dispatch_id for send in driver.sends])

    expected = [("c", "ann", 1), ("d", "ann", 1), ("c", "ann", 2), ("c", "ann", 3), ("c", "bob", 1), ("d", "bob", 1)]
    assert ids[0] == ids[1] == [dispatch_id(name, user, 1, entry) for name, user, entry in expected]
    assert len(set(ids[0])) == len(expected)


@pytest.mark.parametrize(("after_ms", "count"), [(0, 1), (DAY_MS - 1_000, 1), (DAY_MS + 1_000, 2)])
def test_an_event_id_is_applied_once_within_a_day(after_ms: int, count: int) -> None:
    """The same id twice within 24 h counts and sends once, and after that again."""
    driver = driver_of(campaign("c", LOOKED, re_eligible_after="0s"))
    one = {"type": "event", "external_id": "ann", "name": "look", "id": "one"}
    driver.send(one)
    driver.advance(after_ms)
    driver.send(one)

    assert driver.user("ann").events["look"].count == count
    assert len(driver.sends) == count


@pytest.mark.parametrize("first", ["sent", "aborted", "failed"])
def test_a_final_outcome_is_never_replaced(first: OutcomeKind) -> None:
    """After a final outcome no other one changes the row or is told to anyone; held is not final."""
    driver = driver_of(mail("mail", LOOKED))
    look(driver)
    (send,) = driver.sends
    assert driver.outcome(send, "held") == []
    assert driver.user("ann").dispatches[send.dispatch_id].final_ms == 0
    assert len(driver.outcome(send, first)) == 1
    before = driver.rows[0].stored["ann"]
    others: tuple[OutcomeKind, ...] = ("sent", "retry", "held", "aborted", "failed")
    for kind in others:
        for attempt in (1, 2):
            assert driver.outcome(send, kind, driver.now_ms + 1, attempt) == []

    assert driver.rows[0].stored["ann"] == before
    assert driver.user("ann").dispatches[send.dispatch_id].outcome == first
    told = [one.event_type for one in driver.currents if one.event_type.startswith("users.messages")]
    assert len(told) == 1


@pytest.mark.parametrize(("waited_ms", "kept"), [(72 * HOUR_MS - 1, True), (72 * HOUR_MS, False)])
def test_dispatches_are_forgotten(waited_ms: int, kept: bool) -> None:
    """A dispatch leaves the row at an event 72 h after its final outcome, in another hour; time alone does nothing."""
    driver = driver_of(mail("mail", LOOKED))
    look(driver)
    (send,) = driver.sends
    driver.outcome(send, "sent")
    driver.advance(waited_ms)
    assert send.dispatch_id in driver.user("ann").dispatches
    look(driver)

    assert (send.dispatch_id in driver.user("ann").dispatches) is kept


def test_open_dispatches_are_kept() -> None:
    """A dispatch without a final outcome is kept however long it takes, and then counts 72 h from that outcome."""
    driver = driver_of(mail("mail", LOOKED))
    look(driver)
    (send,) = driver.sends
    driver.outcome(send, "held")
    driver.advance(400 * DAY_MS)
    look(driver)
    assert len(driver.outcome(send, "sent")) == 1
    driver.advance(72 * HOUR_MS - 1)
    look(driver)
    assert send.dispatch_id in driver.user("ann").dispatches
    driver.advance(HOUR_MS)
    look(driver)

    assert driver.user("ann").dispatches == {}


def test_outcomes_of_nobody() -> None:
    """An outcome of an unknown dispatch, or of a user who is not there, changes nothing."""
    driver = driver_of(mail("mail", LOOKED))
    look(driver)
    (send,) = driver.sends
    rows = dict(driver.rows[0].stored)
    for stray in (("0" * 32, "ann"), (send.dispatch_id, "nobody")):
        changed = type(send)(stray[0], "mail", "email", stray[1], 0, 0, {}, {}, {})
        assert driver.outcome(changed, "sent") == []

    assert driver.rows[0].stored == rows
