"""Variants: who gets which, for how long, and who gets nothing."""

from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import ids
from streams.campaigns.merge import merge_history
from streams.campaigns.variants import CONTROL, WHOLE, Variant, choose, merged_choice
from streams.definitions import LogMessage, read_definitions
from streams.effects import CurrentsRecord
from streams.errors import BadDefinition
from streams.profiles.row import CampaignHistory, new_user
from streams.sends import Send
from streams.times import DAY_MS
from streams.workspace import compile_workspace
from tests.driver import Driver
from tests.streams.test_campaigns import LOOKED, START_MS, files, look

IDS = 100_000
SHARES = {CONTROL: 10, "a": 45, "b": 30, "c": 15}
SIGMAS = 4.5


def variants(**percents: int) -> tuple[Variant, ...]:
    """Variants of the log channel."""
    return tuple(Variant(name, percent, LogMessage(f"hello {name}")) for name, percent in percents.items())


def test_shares_are_even_and_independent() -> None:
    """Over 100,000 ids every slice, and every pair of slices of two campaigns, is as large as chance allows."""
    split = variants(a=45, b=30, c=15)
    chosen = [
        (choose("one", split, 10, f"user-{at}", None), choose("two", split, 10, f"user-{at}", None))
        for at in range(IDS)
    ]
    for first, share in SHARES.items():
        _within([one for one, _ in chosen], first, share / WHOLE)
        _within([two for _, two in chosen], first, share / WHOLE)
        for second, other in SHARES.items():
            _within(chosen, (first, second), share * other / WHOLE**2)


def _within(found: list[Any], wanted: object, share: float) -> None:
    bound = SIGMAS * sqrt(len(found) * share * (1 - share))
    assert abs(found.count(wanted) - len(found) * share) < bound, wanted


def test_a_share_is_pinned() -> None:
    """What a user draws never changes between versions of the program: rows written before must stay right."""
    assert [ids.share_of("welcome", f"user-{at}") for at in range(8)] == PINNED


PINNED = [82, 52, 32, 90, 28, 0, 27, 99]


@given(st.text(min_size=1, max_size=40), st.integers(0, 99), st.integers(1, 99))
def test_a_choice_stays(user: str, control: int, cut: int) -> None:
    """Whatever the percentages become, a user keeps the first choice, and whoever received never gets into control."""
    first = choose("c", variants(a=WHOLE - control), control, user, None)
    history = CampaignHistory(1, 0, first)
    later = variants(a=cut, b=WHOLE - cut)

    assert choose("c", later, 0, user, history) == first
    assert choose("c", later, 99, user, history) == first
    assert choose("c", variants(b=1), 99, user, history) == ("b" if first == "a" else CONTROL)
    assert choose("c", variants(b=1), 99, user, CampaignHistory(3, 0)) == "b"


def test_merged_choice() -> None:
    """After a merge the known user's choice holds; without one the other's."""
    assert [merged_choice("a", "b"), merged_choice("", "b"), merged_choice("a", "")] == ["a", "b", "a"]


def split_campaign(**more: Any) -> dict[str, Any]:
    """A campaign with two variants and a control group."""
    versions = [{"name": name, "percent": 40, "message": {"text": f"hello {name}"}} for name in ("a", "b")]
    return {"name": "c", "trigger": LOOKED, "channel": "log", "variants": versions, "control": 20, **more}


def outcome_of(driver: Driver, user: str) -> list[str]:
    """What each entry of a user came to: a variant's name, or `control`."""
    found = []
    for effect in driver.effects:
        if isinstance(effect, Send) and effect.user == user:
            found.append(effect.variant)
        elif isinstance(effect, CurrentsRecord) and effect.event_type == "users.campaigns.EnrollInControl":
            found += [effect.fields["message_variation_name"]] if effect.fields["external_user_id"] == user else []
    return found


@pytest.mark.parametrize("delay", ["0s", "1h"])
def test_entries(delay: str) -> None:
    """A user in control gets no send but an export record, each entry anew, and others always their first variant."""
    driver = Driver(files(split_campaign(delay=delay, re_eligible_after="1d")))
    users = [f"user-{at}" for at in range(60)]
    for number in range(3):
        for user in users:
            look(driver, user)
        driver.advance(DAY_MS)
        if number == 1:
            changed = split_campaign(delay=delay, re_eligible_after="1d", control=1)
            changed["variants"] = [
                {**each, "percent": share} for each, share in zip(changed["variants"], (98, 1), strict=True)
            ]
            driver.switch(read_definitions(files(changed)))
    found = {user: outcome_of(driver, user) for user in users}

    assert {len(each) for each in found.values()} == {3}
    assert {len(set(each)) for each in found.values()} == {1}
    assert {each[0] for each in found.values()} == {"a", "b", CONTROL}
    assert {user: driver.user(user).campaigns["c"].variant for user in users} == {u: f[0] for u, f in found.items()}
    assert not any(driver.user(user).dispatches for user in users if found[user][0] == CONTROL)


def test_enrolment_record() -> None:
    """The record names the campaign, the control variation and the user, at the time of the decision."""
    driver = Driver(files(split_campaign(variants=[], control=99, message={"text": "hello"})))
    user = next(f"user-{at}" for at in range(100) if ids.share_of("c", f"user-{at}") < 99)
    look(driver, user)
    record = driver.currents[-1]

    assert record.time_ms == START_MS
    assert record.fields == {
        "id": ids.currents_id(ids.dispatch_id("c", user, 1, 1), "users.campaigns.EnrollInControl"),
        "user_id": ids.user_id(user),
        "external_user_id": user,
        "campaign_id": ids.definition_api_id("campaign", "c"),
        "campaign_name": "c",
        "message_variation_id": ids.definition_api_id("variation", "c/control"),
        "message_variation_name": "control",
    }


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"control": 21}, "percents and control make 101"),
        ({"message": {"text": "x"}}, "exactly one of message and variants"),
        ({"variants": []}, "exactly one of message and variants"),
        ({"variants": [{"name": "control", "percent": 80, "message": {"text": "x"}}]}, "control group's"),
        ({"variants": [{"name": "a", "percent": 80, "message": {}}]}, "variants[0].message"),
        ({"variants": 2 * [{"name": "a", "percent": 40, "message": {"text": "x"}}]}, "used twice"),
        ({"variants": 9 * [{"name": "a", "percent": 9, "message": {"text": "x"}}]}, "length <= 8"),
    ],
)
def test_refused(more: dict[str, Any], fault: str) -> None:
    """What cannot be a choice is refused, in words that name the key."""
    with pytest.raises(BadDefinition) as refused:
        compile_workspace(read_definitions(files(split_campaign(**more))), 0)
    assert fault in str(refused.value)


def test_a_merge_keeps_the_known_choice() -> None:
    """When two rows become one, the known user's variant stays, and one that only the other had comes along."""
    known, other = new_user(0), new_user(0)
    known.campaigns = {"c": CampaignHistory(1, 5, "a"), "d": CampaignHistory(1, 5)}
    other.campaigns = {name: CampaignHistory(2, 9, "b") for name in "cde"}
    merge_history(known, other, compile_workspace(read_definitions({}), 0))

    assert known.campaigns == {
        "c": CampaignHistory(3, 9, "a"),
        "d": CampaignHistory(3, 9, "b"),
        "e": CampaignHistory(2, 9, "b"),
    }
