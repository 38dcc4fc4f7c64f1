"""The rules of identifying, one by one: what moves, what stays, who is told, and where it ends."""

from __future__ import annotations

from typing import Any

import pytest

from streams import identity
from streams.campaigns.merge import merge_history
from streams.codec import to_json
from streams.definitions import read_definitions
from streams.effects import CurrentsRecord, Post, Refused, SegmentChange
from streams.exports import decode_row
from streams.ids import user_id
from streams.mailbox import Consent, MergePart, Outcome
from streams.profiles.room import ROW_ATTRIBUTES_MAX
from streams.profiles.row import Devices, Merged, User, Waiting, new_user
from streams.sends import Send
from tests.driver import Driver
from tests.streams.mailboxes import START_MS, Mailboxes

HOUR_MS = 3_600_000
DEVICE = "device:d1"


def _segment(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    return {f"segments/{name}.yaml": {"name": name, "filter": tree}}


def _campaign(name: str, trigger: dict[str, Any], **more: Any) -> dict[str, Any]:
    document = {"name": name, "trigger": trigger, "channel": "log", "message": {"text": "x"}, **more}
    return {f"campaigns/{name}.yaml": document}


TWICE = _segment("twice", {"event": {"name": "like", "at_least": 2}})


def _like(**who: str) -> dict[str, Any]:
    return {"type": "event", "name": "like", **who}


def _identify(external_id: str, device_id: str = "d1", **more: Any) -> dict[str, Any]:
    return {"type": "identify", "device_id": device_id, "external_id": external_id, **more}


def _row(world: Mailboxes, key: str) -> User:
    user = world.user(key)
    assert user is not None
    return user


def _changes(world: Mailboxes) -> list[tuple[str, str, bool]]:
    return [(each.user, each.segment, each.entered) for each in world.effects if isinstance(each, SegmentChange)]


def _sends(world: Mailboxes) -> list[Send]:
    return [each for each in world.effects if isinstance(each, Send)]


def _play(world: Mailboxes, *values: dict[str, Any]) -> Mailboxes:
    for value in values:
        world.send(value)
        world.settle()
    return world


def test_an_unknown_external_id_takes_everything_over() -> None:
    """The known user begins as what the device's user was, which is left in no segment and with no timer."""
    world = _play(Mailboxes(TWICE, 3), _like(device_id="d1"), _like(device_id="d1"), _identify("ann"))

    ann, left = _row(world, "ann"), _row(world, DEVICE)
    assert ann.events["like"].count == 2
    assert _changes(world) == [(DEVICE, "twice", True), (DEVICE, "twice", False), ("ann", "twice", True)]
    assert isinstance(left.links, Merged)
    assert (left.links.relations[0].user, left.events, left.timer_ms) == ("ann", {}, None)
    assert ann.links == Devices({DEVICE: 0})


def test_the_known_users_attributes_win_and_blanks_are_filled() -> None:
    """Key by key: what the known user has stays, what it lacks comes from the device."""
    world = _play(
        Mailboxes({}, 3),
        {"type": "attributes", "external_id": "ann", "first_name": "Ann", "plan": "gold"},
        {"type": "attributes", "device_id": "d1", "first_name": "A.", "color": "red"},
        _identify("ann"),
    )

    assert _row(world, "ann").attributes == {"first_name": "Ann", "plan": "gold", "color": "red"}


def test_a_device_is_merged_once_and_later_belongs_to_another() -> None:
    """A, B and A again on one device: A has what was anonymous, B nothing of it, and nothing goes round."""
    world = _play(Mailboxes({}, 3), _like(device_id="d1"), _identify("ann"), _identify("bob"), _identify("ann"))

    assert _row(world, "ann").events["like"].count == 1
    assert _row(world, "bob").events == {}
    assert [each.user for each in world.posts] == ["ann", "bob", "ann"]
    assert world.total("merged") == 1


def test_identifying_again_changes_nothing() -> None:
    """The same identification, from another record, sends no letter."""
    world = _play(Mailboxes({}, 3), _like(device_id="d1"), _identify("ann"), _identify("ann"))

    assert len(world.posts) == 1


def test_a_late_event_goes_to_whoever_had_the_device_then() -> None:
    """By its own time: before the first user to the first, from the second's time on to the second."""
    world = _play(Mailboxes({}, 3), _like(device_id="d1"), _identify("ann"))
    world.now_ms += HOUR_MS
    _play(world, _identify("bob"))
    for at_s, wanted in ((START_MS // 1000 - 60, (2, 0)), (world.now_ms // 1000, (2, 1))):
        stamp = {"time": f"{_iso(at_s)}"}
        _play(world, {**_like(device_id="d1"), **stamp})
        ann, bob = _row(world, "ann").events.get("like"), _row(world, "bob").events.get("like")
        assert (ann.count if ann else 0, bob.count if bob else 0) == wanted


def _iso(at_s: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_s, UTC).isoformat()


def test_an_external_id_may_not_look_like_a_device() -> None:
    """No record makes a known user whose key is a device's, so no letter can go from one device to another."""
    world = _play(Mailboxes({}, 3), _like(external_id="device:d1"), _identify("device:d2"))

    reasons = [dict(output.headers)["field"] for output in world.dead]
    assert reasons == [b"external_id", b"external_id"]
    assert world.posts == []


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"type": "event", "name": "like", "device_id": "a b"}, b"device_id"),
        ({"type": "event", "name": "like", "device_id": ""}, b"device_id"),
        ({"type": "identify", "device_id": "d1"}, b"external_id"),
    ],
)
def test_a_bad_device_or_identification_is_refused(value: dict[str, Any], field: bytes) -> None:
    """What cannot be a device's key, or names nobody, is a dead letter that says which field is wrong."""
    driver = Driver({})

    driver.send(to_json(value))

    assert [dict(output.headers)["field"] for output in driver.dead_letters] == [field]


def test_a_crossing_that_the_device_had_made_starts_no_campaign_again() -> None:
    """What the device's user entered started the campaign then; what only both together enter starts it now."""
    files = {**TWICE, **_campaign("thanks", {"segment_entered": "twice"}, re_eligible_after="0s")}
    carried = _play(Mailboxes(files, 3), _like(device_id="d1"), _like(device_id="d1"), _identify("ann"))
    joined = _play(Mailboxes(files, 3), _like(device_id="d1"), _like(external_id="ann"), _identify("ann"))

    assert [each.user for each in _sends(carried)] == [DEVICE]
    assert [each.user for each in _sends(joined)] == ["ann"]


def test_a_campaign_that_either_has_entered_does_not_start_again() -> None:
    """History is one: after the merge the known user is as ineligible as the device's user was."""
    files = _campaign("once", {"event": {"name": "like"}})
    world = _play(Mailboxes(files, 3), _like(device_id="d1"), _identify("ann"), _like(external_id="ann"))

    assert [each.user for each in _sends(world)] == [DEVICE]


@pytest.mark.parametrize(("after", "sends"), [("0s", [DEVICE, "ann"]), ("5s", [DEVICE])])
def test_an_entry_from_a_partition_whose_clock_is_ahead_counts_as_of_now(after: str, sends: list[str]) -> None:
    """Where everybody may enter at any time the known user may, though what the device entered lies in its future."""
    files = _campaign("again", {"event": {"name": "like"}}, re_eligible_after=after)
    world = Mailboxes(files, 3)
    world.now_ms += 8_000
    _play(world, _like(device_id="d1"))
    world.now_ms -= 8_000
    _play(world, _identify("ann"), _like(external_id="ann"))

    assert [each.user for each in _sends(world)] == sends


def test_what_waits_is_sent_to_the_known_user_under_an_id_of_its_own() -> None:
    """A delayed entry of the device moves behind the known user's entries, so no two dispatches share an id."""
    files = _campaign("later", {"event": {"name": "like"}}, delay="2h", re_eligible_after="1s")
    world = _play(Mailboxes(files, 3), _like(external_id="ann"))
    world.now_ms += 5_000
    _play(world, _like(device_id="d1"), _identify("ann"))
    world.tick(world.now_ms + 3 * HOUR_MS)
    world.settle()

    assert [each.user for each in _sends(world)] == ["ann", "ann"]
    assert len({each.dispatch_id for each in _sends(world)}) == 2


def test_one_person_does_not_wait_twice_for_the_same_message() -> None:
    """Where one user could not have entered twice, the known user's own entry is the one that is sent."""
    files = _campaign("later", {"event": {"name": "like"}}, delay="2h")
    world = _play(Mailboxes(files, 3), _like(external_id="ann"), _like(device_id="d1"), _identify("ann"))
    world.tick(world.now_ms + 3 * HOUR_MS)
    world.settle()

    assert [each.user for each in _sends(world)] == ["ann"]


def test_an_outcome_follows_to_the_known_user() -> None:
    """What becomes of a message decided before the merge is told to the known user, once, and exported as its own."""
    files = {
        "campaigns/hook.yaml": {
            "name": "hook",
            "trigger": {"event": {"name": "like"}},
            "channel": "webhook",
            "message": {"body": "x"},
        }
    }
    world = _play(Mailboxes(files, 3), _like(device_id="d1"), _identify("ann"))
    dispatch = _sends(world)[0].dispatch_id
    for _ in range(2):
        world.outcome(DEVICE, Outcome(dispatch, 1, "sent", world.now_ms))
        world.settle()

    records = [each for each in world.effects if isinstance(each, CurrentsRecord) and "messages" in each.event_type]
    assert [each.fields["external_user_id"] for each in records] == ["ann"]
    assert _row(world, "ann").dispatches[dispatch].outcome == "sent"


def test_consent_follows_the_open_dispatches() -> None:
    """The device's row, where delivery looks, hears at the merge and later what the known user consents to."""
    world = _play(
        Mailboxes({}, 3),
        {"type": "attributes", "external_id": "ann", "email_subscribe": "unsubscribed"},
        {"type": "attributes", "device_id": "d1", "email_subscribe": "subscribed", "email": "a@example.com"},
        _identify("ann"),
    )
    assert _row(world, DEVICE).attributes == {"email_subscribe": "unsubscribed"}

    _play(world, {"type": "attributes", "external_id": "ann", "email_subscribe": "opted_in"})
    assert _row(world, DEVICE).attributes == {"email_subscribe": "opted_in"}
    before = len(world.posts)
    _play(world, _like(external_id="ann"))
    assert len(world.posts) == before
    assert all(isinstance(each.letter, (MergePart, Consent)) for each in world.posts)


def test_a_large_row_goes_in_parts_and_counts_when_all_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each letter is bounded; until the last part nothing of the row is seen, whatever comes in between."""
    monkeypatch.setattr(identity, "PART_BYTES_MAX", 64)
    world = Mailboxes(TWICE, 3)
    _play(world, *({"type": "event", "device_id": "d1", "name": f"e{number}"} for number in range(20)))
    world.send(_identify("ann"))
    source = next(at for at in range(3) if world.partitions[at].rows.get(DEVICE))
    world.work(source)
    parts = [each.letter for each in world.posts]
    assert len(parts) > 5
    assert all(isinstance(each, MergePart) and len(each.data) <= 64 for each in parts)
    target = next(at for at in range(3) if world.behind(at) >= len(parts))
    world.work(target, len(parts) - 1)
    assert _row(world, "ann").events == {}
    world.crash(target, 1)
    world.settle()

    assert len(_row(world, "ann").events) == 20
    links = _row(world, "ann").links
    assert isinstance(links, Devices)
    assert links.arriving == {}
    assert world.total("merges_split") == 1


def test_what_a_row_has_no_room_for_is_left_out_and_counted() -> None:
    """The known user's attributes stay, the device's fill what room there is, and the rest is counted."""
    full = {f"a{number}": number for number in range(ROW_ATTRIBUTES_MAX - 1)}
    world = _play(
        Mailboxes({}, 3),
        {"type": "attributes", "external_id": "ann", **full},
        {"type": "attributes", "device_id": "d1", "x": 1, "y": 2, "z": 3},
        _identify("ann"),
    )

    assert len(_row(world, "ann").attributes) == ROW_ATTRIBUTES_MAX
    assert world.total("merge_values_left_out") == 2


def test_relations_and_devices_are_bounded() -> None:
    """A device remembers its first and its newest users, a user its newest devices; nothing grows without end."""
    world = _play(Mailboxes({}, 3), *(_identify(f"u{number}") for number in range(30)))
    left = _row(world, DEVICE).links
    assert isinstance(left, Merged)
    assert [each.user for each in left.relations] == ["u0", *(f"u{number}" for number in range(15, 30))]

    _play(world, *(_identify("ann", f"d{number}") for number in range(identity.DEVICES_MAX + 5)))
    links = _row(world, "ann").links
    assert isinstance(links, Devices)
    assert len(links.taken) == identity.DEVICES_MAX
    assert world.total("links_forgotten") == (31 - identity.RELATIONS_MAX) + 5


def test_a_letter_that_comes_twice_is_taken_once() -> None:
    """Merge parts and late events have numbers: what another log has repeated changes nothing."""
    world = _play(Mailboxes({}, 3), _like(device_id="d1"), _identify("ann"), _like(device_id="d1"))
    for output in [record for each in world.partitions for record in each.mailbox if record.key == b"ann"]:
        at = next(at for at in range(3) if output in world.partitions[at].mailbox)
        world.partitions[at].mailbox.append(
            type(output)(len(world.partitions[at].mailbox), world.now_ms, output.key, output.value)
        )
    world.settle()

    assert _row(world, "ann").events["like"].count == 2


def test_what_an_anonymous_user_does_is_exported_without_an_external_id() -> None:
    """Its records carry the device; one tells the warehouse who it was; what comes late is the known user's."""
    world = _play(Mailboxes({}, 3), _like(device_id="d1"), _identify("ann"), _like(device_id="d1"))

    rows = [decode_row(output.value) for output in world.outputs if output.topic == "currents"]
    told = [(row["event_type"], row["user_id"], row.get("external_user_id"), row.get("device_id")) for row in rows]
    anonymous, known = user_id(DEVICE), user_id("ann")
    assert told == [
        ("users.behaviors.CustomEvent", anonymous, None, "d1"),
        ("users.UserOrphan", anonymous, None, "d1"),
        ("users.behaviors.CustomEvent", known, "ann", None),
    ]
    assert rows[1]["orphaned_by_id"] == known


@pytest.mark.parametrize("ahead", ["device", "known"])
def test_partitions_at_different_versions_agree_after_a_merge(ahead: str) -> None:
    """Whichever partition has gone over to new definitions first, the merged row is as the newest ones ask."""
    new = {**TWICE, **_segment("lately", {"event": {"name": "like", "at_least": 2, "within": "1d"}})}
    world = Mailboxes(TWICE, 4, "wall", new)
    _play(world, _like(device_id="d1"), _like(external_id="ann"))
    source = next(at for at in range(4) if world.partitions[at].rows.get(DEVICE))
    target = next(at for at in range(4) if world.partitions[at].rows.get("ann"))
    assert source != target
    world.switch(1)
    if ahead == "device":
        world.work(source)
        world.send(_identify("ann"))
        world.work(source)
        post = world.posts[-1].letter
        assert isinstance(post, MergePart)
        assert post.version == 1
    else:
        mailbox = world.partitions[source].mailbox
        switch = mailbox.pop()
        world.send(_identify("ann"))
        world.work(source)
        mailbox.append(type(switch)(len(mailbox), switch.append_ms, switch.key, switch.value))
    world.settle()

    assert set(_row(world, "ann").memberships) == {"twice", "lately"}
    assert read_definitions(new) is not None


def test_a_refused_late_event_is_a_dead_letter_of_its_record() -> None:
    """What the known user's row cannot take is refused with the place where the record lies."""
    full = {f"a{number}": number for number in range(ROW_ATTRIBUTES_MAX)}
    world = _play(
        Mailboxes({}, 3),
        {"type": "attributes", "external_id": "ann", **full},
        _identify("ann"),
        {"type": "attributes", "device_id": "d1", "late": 1},
    )

    refused = [each for each in world.effects if isinstance(each, Refused)]
    assert [(each.reason, each.cause.offset) for each in refused] == [("row_limit", 1)]
    assert [each.user for each in world.effects if isinstance(each, Post)] == ["ann", "ann"]


def test_what_waits_for_the_users_own_time_waits_once() -> None:
    """A scheduled campaign that waits for both of one person is sent to the known user, and only once."""
    own, other = new_user(START_MS), new_user(START_MS)
    for user in (own, other):
        user.waiting = [Waiting(START_MS + 1, "plan", 0, {})]
    other.waiting.append(Waiting(START_MS + 1, "second", 0, {}))

    merge_history(own, other, Mailboxes({}, 1).workspaces[0])

    assert [(each.campaign, each.entry) for each in own.waiting] == [("plan", 0), ("second", 0)]
