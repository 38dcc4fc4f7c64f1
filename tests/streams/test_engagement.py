"""Tokens of links hold what we signed and nothing else, and what they prove reaches rows and exports once."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.effects import CurrentsRecord
from streams.engagement import (
    ALLOWED,
    Claims,
    EngagementKind,
    TokenKind,
    read_return_path,
    read_signing_keys,
    return_path,
    sign,
    verify,
)
from streams.engagements import records
from streams.errors import BadInput
from streams.events import Engagement
from streams.exports import SCHEMAS, row
from streams.mailbox import Cause
from streams.profiles.engaged import CAMPAIGNS_MAX
from streams.times import format_time
from tests.driver import Driver

KEYS = (b"k" * 32,)
KINDS: tuple[TokenKind, ...] = get_args(TokenKind)
DISPATCH = "0123456789abcdef" * 2
CLAIMS = Claims(DISPATCH, "win_back", "", "email", "ann", 1_000_000_000_000)

texts = st.text(st.characters(codec="utf-8"), max_size=30)
claims = st.builds(
    Claims,
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    texts,
    texts,
    st.sampled_from(["email", "log"]),
    texts,
    st.integers(0, 2**53),
)
kinds = st.sampled_from(KINDS)


@given(claims, kinds, st.text(st.characters(codec="ascii"), max_size=200))
def test_a_token_says_what_was_signed(told: Claims, kind: TokenKind, url: str) -> None:
    """Whatever is signed comes back whole, and the same again gives the same text, fit for a URL's path."""
    token = sign(KEYS, told, kind, url)
    found = verify(KEYS, token, KINDS)

    assert (found.claims, found.kind, found.url) == (told, kind, url)
    assert token == sign(KEYS, told, kind, url)
    assert token.replace("-", "").replace("_", "").isalnum()


@given(claims, kinds, st.data())
def test_no_bit_of_a_token_can_be_changed(told: Claims, kind: TokenKind, data: st.DataObject) -> None:
    """A token with any one bit of its bytes, or of its text, flipped is refused; so is one cut or made longer."""
    token = sign(KEYS, told, kind, "https://example.com/")
    raw = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    flipped = urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    place, bit = data.draw(st.integers(0, len(token) - 1)), data.draw(st.integers(0, 6))
    other = token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :]

    for forged in (flipped, other, token[:-1], token + "A", token + "=", " " + token, token + "\n", token[1:]):
        with pytest.raises(BadInput, match="bad_token"):
            verify(KEYS, forged, KINDS)


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    """Whatever is sent instead of a token is refused in the same way, and nothing else is raised."""
    with pytest.raises(BadInput, match="bad_token"):
        verify(KEYS, text, KINDS)


@given(claims, kinds, kinds)
def test_a_token_is_for_one_kind_of_link(told: Claims, kind: TokenKind, other: TokenKind) -> None:
    """The token of one kind of link is refused at the door of another."""
    token = sign(KEYS, told, kind)
    if kind == other:
        assert verify(KEYS, token, (other,)).kind == kind
    else:
        with pytest.raises(BadInput, match="another kind"):
            verify(KEYS, token, (other,))


def test_keys_are_rotated() -> None:
    """After a new key is put in front, old tokens still count; after the old one is taken out, they do not."""
    old, new = b"o" * 32, b"n" * 32
    token = sign((old,), CLAIMS, "open")

    assert verify((new, old), token, ("open",)).claims == CLAIMS
    assert sign((new, old), CLAIMS, "open") == sign((new,), CLAIMS, "open") != token
    for keys in ((new,), (), (b"o" * 33,)):
        with pytest.raises(BadInput, match="bad_token"):
            verify(keys, token, ("open",))


@pytest.mark.parametrize(
    "text", ["tooweak", "", ",", "x" * 31, "x" * 32 + ",tooweak", ",".join("x" * 32 for _ in "12345")]
)
def test_weak_keys_are_refused(text: str) -> None:
    """A key too short to be safe, none, or too many are refused without being quoted."""
    with pytest.raises(ValueError, match="key") as refused:
        read_signing_keys(text)
    assert "tooweak" not in str(refused.value)
    assert "xxx" not in str(refused.value)


@given(st.binary(min_size=16, max_size=16).map(bytes.hex), st.data())
def test_a_return_path_names_its_dispatch(dispatch_id: str, data: st.DataObject) -> None:
    """The sender of the envelope gives back its dispatch in either case, and nothing once a letter is changed."""
    path = return_path(KEYS, dispatch_id)
    at = data.draw(st.integers(0, len(path) - 1))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda each: each != path[at]))

    assert len(path) == 52
    assert read_return_path(KEYS, path) == read_return_path(KEYS, path.upper()) == dispatch_id
    assert read_return_path(KEYS, path[:at] + letter + path[at + 1 :]) is None
    assert read_return_path((b"other" * 8,), path) is None
    assert read_return_path(KEYS, path[:-1]) is None


# ---- from the events topic to the row


def item(kind: str, token_kind: TokenKind = "open", url: str = "", **more: object) -> dict[str, object]:
    """An engagement with a token of ours."""
    return {"type": "engagement", "kind": kind, "token": sign(KEYS, CLAIMS, token_kind, url), **more}


@pytest.fixture
def driver() -> Driver:
    """One user, ann, who has an address."""
    driver = Driver({}, keys=KEYS)
    driver.send({"type": "attributes", "external_id": "ann", "email": "ann@example.com", "time_zone": "Europe/Berlin"})
    return driver


def reasons(driver: Driver) -> list[str]:
    """Why records were dead-lettered."""
    return [dict(letter.headers)["reason"].decode() for letter in driver.dead_letters]


def written(found: list[Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The export records among effects, each held to its schema: no field of another name, no required one missing."""
    told = [effect for effect in found if isinstance(effect, CurrentsRecord)]
    for record in told:
        fields = {field["name"]: field["type"] for field in SCHEMAS[record.event_type]["fields"]}
        assert set(record.fields) <= set(fields)
        needed = {name for name, kind in fields.items() if not isinstance(kind, list)}
        assert needed <= set(row(record.fields, record.time_ms))
    return [(record.event_type.rpartition(".")[2], record.fields) for record in told]


def test_opens_and_clicks_are_counted_and_told(driver: Driver) -> None:
    """Each hit is an open or a click of its own, told with the message's ids; machines do not move the last times."""
    first = format_time(driver.now_ms)
    driver.advance(60_000)
    effects = driver.send(item("open", time=first, user_agent="Thunderbird"), b"ann")
    effects += driver.send(item("open", machine=True), b"ann")
    effects += driver.send(item("click", "click", "https://shop.example/?a=1", id="one"), b"ann")
    effects += driver.send(item("click", "click", "https://shop.example/?a=1", id="one"), b"ann")
    told = written(effects)

    assert [kind for kind, _ in told] == ["Open", "Open", "Click"]
    opened, ahead, clicked = (fields for _, fields in told)
    assert opened["user_agent"] == "Thunderbird"
    assert "machine_open" not in opened
    assert ahead["machine_open"] == "true"
    assert (clicked["url"], clicked["is_suspected_bot_click"]) == ("https://shop.example/?a=1", False)
    assert opened["dispatch_id"] == clicked["dispatch_id"] == DISPATCH
    assert (clicked["campaign_name"], clicked["email_address"]) == ("win_back", "ann@example.com")
    assert clicked["timezone"] == "Europe/Berlin"
    assert len({fields["id"] for _, fields in told}) == 3
    engaged = driver.user("ann").engaged["win_back"]
    assert (engaged.opens, engaged.machine_opens, engaged.clicks) == (2, 1, 1)
    assert (engaged.open_ms, engaged.click_ms) == (driver.now_ms - 60_000, driver.now_ms)
    assert driver.folds[0].position.totals.engagements == 3
    assert driver.folds[0].position.totals.duplicates == 1


def test_a_row_remembers_few_campaigns(driver: Driver) -> None:
    """However many campaigns somebody opens, the row keeps the latest ones."""
    for number in range(CAMPAIGNS_MAX + 10):
        driver.advance(1_000)
        told = Claims(DISPATCH, f"c{number:03d}", "", "email", "ann", 0)
        driver.send({"type": "engagement", "kind": "open", "token": sign(KEYS, told, "open")}, b"ann")

    assert sorted(driver.user("ann").engaged) == [f"c{number:03d}" for number in range(10, CAMPAIGNS_MAX + 10)]


def test_unsubscribing_changes_the_profile_once() -> None:
    """An unsubscribe sets the attribute, moves segments and starts what waits for it; a second one says nothing new."""
    files = {
        "segments/out.yaml": {
            "name": "out",
            "filter": {"attribute": {"path": "email_subscribe", "is": "unsubscribed"}},
        },
        "campaigns/bye.yaml": {
            "name": "bye",
            "trigger": {"attribute_changed": "email_subscribe"},
            "channel": "log",
            "message": {"text": "x"},
        },
    }
    driver = Driver(files, keys=KEYS)
    driver.send({"type": "attributes", "external_id": "ann", "email": "ann@example.com"})
    told = driver.send(item("unsubscribe", "unsubscribe", source="List-Unsubscribe"), b"ann")
    again = driver.send(item("unsubscribe", "preferences"), b"ann")
    back = driver.send(item("subscribed", "preferences", source="Preference Center"), b"ann")

    assert [kind for kind, _ in written(told)] == ["Unsubscribe", "GlobalStateChange"]
    change = written(told)[1][1]
    assert (change["subscription_status"], change["state_change_source"]) == ("Unsubscribed", "List-Unsubscribe")
    assert written(again) == []
    assert [(kind, fields["subscription_status"]) for kind, fields in written(back)] == [
        ("GlobalStateChange", "Subscribed")
    ]
    assert [(change.segment, change.entered) for change in driver.changes] == [("out", True), ("out", False)]
    assert [send.campaign for send in driver.sends] == ["bye"]
    assert driver.user("ann").attributes["email_subscribe"] == "subscribed"


@pytest.mark.parametrize("kind", get_args(EngagementKind))
@pytest.mark.parametrize("token_kind", KINDS)
def test_a_token_proves_only_what_its_link_does(driver: Driver, kind: EngagementKind, token_kind: TokenKind) -> None:
    """An item whose kind its token does not allow is dead-lettered as forged, and changes nothing."""
    before = dict(driver.rows[0].stored)
    driver.send(item(kind, token_kind), b"ann")

    if kind in ALLOWED[token_kind]:
        assert reasons(driver) == []
    else:
        assert reasons(driver) == ["bad_token"]
        assert driver.rows[0].stored == before


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (item("open"), b"bob", "key_mismatch"),
        ({**item("open"), "external_id": "bob"}, b"bob", "key_mismatch"),
        ({**item("open"), "external_id": "bob"}, b"ann", "key_mismatch"),
        ({**item("open"), "token": sign((b"x" * 32,), CLAIMS, "open")}, b"ann", "bad_token"),
        ({**item("open"), "token": sign(KEYS, CLAIMS, "open")[:-1]}, b"ann", "bad_token"),
        ({**item("open"), "token": ""}, b"ann", "bad_token"),
        ({**item("open"), "kind": "purchase"}, b"ann", "wrong_type"),
        ({**item("open"), "time": "9999-01-01T00:00:00Z"}, b"ann", "time_in_future"),
        ({"type": "engagement", "kind": "open"}, b"ann", "missing_field"),
    ],
)
def test_forged_items_are_dead_lettered(driver: Driver, value: Mapping[str, Any], key: bytes, reason: str) -> None:
    """Who can write into events but has no key of ours can forge no engagement, nor lay one to another user."""
    before = dict(driver.rows[0].stored)
    driver.send(value, key)

    assert reasons(driver) == [reason]
    assert driver.rows[0].stored == before


def test_a_link_brings_nobody_back() -> None:
    """A token of a user whom nobody knows, such as one deleted since, makes no row: the item is dead-lettered."""
    driver = Driver({}, keys=KEYS)
    effects = driver.send(item("open"), b"ann")

    assert [type(effect).__name__ for effect in effects] == ["Refused"]
    assert driver.rows[0].stored == {}


@given(st.lists(st.sampled_from(get_args(EngagementKind)), max_size=12))
def test_the_same_log_gives_the_same_row(told: list[EngagementKind]) -> None:
    """A second fold of the same letters gives the same bytes and the same records."""
    of = {kind: token for token, kinds in ALLOWED.items() for kind in kinds}
    first, second = (Driver({}, keys=KEYS) for _ in "12")
    for driver in (first, second):
        driver.send({"type": "attributes", "external_id": "ann", "email": "a@b.c"})
        for kind in told:
            driver.send(item(kind, of[kind]), b"ann")

    assert first.rows[0].stored == second.rows[0].stored
    assert first.effects == second.effects


def test_nothing_personal_is_needed_for_a_record() -> None:
    """A user without an address has records all the same, with an empty one: the schema allows no null."""
    event = Engagement("open", 0, CLAIMS)
    (record,) = records("ann", event, Cause("t", 0, 0, 0), {}, is_new=False)

    assert record.fields["email_address"] == ""
