"""What people and pages send makes no row, send or letter larger than a broker takes, and nobody stops over it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import pytest

from agents.engine.kafka.clients import RECORD_BYTES_MAX
from streams import identity
from streams.codec import pack, to_json
from streams.definitions import read_definitions
from streams.effects import Refused
from streams.errors import BadInput
from streams.events import Attributes, CustomEvent, Event, Purchase
from streams.ingest.raw_record import read_record
from streams.mailbox import Cause, Happening, Outcome
from streams.outputs import to_outputs
from streams.profiles import room
from streams.profiles.apply import apply_attributes, apply_event, apply_purchase
from streams.profiles.fields import LONGER_CHARS_MAX, TEXT_CHARS_MAX
from streams.profiles.row import Devices, OpenDispatch, User, Waiting, encode_row, new_user
from streams.records import Output
from streams.sends import SEND_BYTES_MAX, Send, decode_send
from streams.times import DAY_MS
from streams.track import EVENT_PROPERTIES_BYTES_MAX, PURCHASE_PROPERTIES_BYTES_MAX
from streams.users import decide_merge
from streams.workspace import compile_workspace
from tests.streams.mailboxes import START_MS, Mailboxes

WIDE: Final = "\U0001f40c"
"""Four bytes of UTF-8: as many as a character has."""

HOUR_MS: Final = 3_600_000
CAUSE: Final = Cause("events", 0, 0, 0)


def long_name(number: int, kind: str = "") -> str:
    """A name as long as any may be, in bytes too."""
    mark = f"{kind}{number}"
    return mark + WIDE * (255 - len(mark))


def fill(user: User, kind: str) -> User:
    """Let everything come that one may send, until the row takes no more of it; whatever is short comes last."""
    for number in range(1_200):
        for name, value in ((long_name(number, kind), WIDE * TEXT_CHARS_MAX), (f"{kind}{number}", "")):
            with suppress(BadInput):
                apply_attributes(user, Attributes({name: value}, START_MS))
            _happen(user, name)
        with suppress(BadInput):
            currency = kind.upper() + "".join(chr(65 + number // part % 26) for part in (26, 1))
            apply_purchase(user, Purchase("p", currency, Decimal(number), 1, START_MS, {}), {}, START_MS)
        properties = {"x": "y" * (100_000 if number < 10 else 400)}
        if room.may_wait(user, properties):
            user.waiting.append(Waiting(START_MS + HOUR_MS, "c" * 100, number + 1, properties))
        dispatch = OpenDispatch("c" * 100, "webhook", START_MS, "retry", 0, 3, "v" * 100)
        room.note_dispatch(user, f"{kind}{number:031x}", dispatch)
    return user


def _happen(user: User, name: str) -> None:
    """An event and a purchase on each of many days."""
    times_ms = [START_MS - day * DAY_MS for day in range(40)]
    with suppress(BadInput):
        for time_ms in times_ms:
            apply_event(user, CustomEvent(name, time_ms, {}), {}, time_ms)
    with suppress(BadInput):
        for time_ms in times_ms:
            apply_purchase(user, Purchase(name, "USD", Decimal("0.1"), 100, time_ms, {}), {}, time_ms)


def assert_within_each_limit(user: User) -> None:
    """Each kind of thing by itself."""
    assert room.attributes_bytes(user.attributes) <= room.ROW_ATTRIBUTES_BYTES_MAX
    assert max(room.names_bytes(user.events), room.names_bytes(user.products)) <= room.ROW_NAMES_BYTES_MAX
    assert len(user.money) == room.ROW_CURRENCIES_MAX
    assert len(user.waiting) <= room.WAITING_MAX
    assert len(user.dispatches) == room.DISPATCHES_MAX


def test_a_full_row_beside_rows_that_arrive_is_one_record_and_two_of_them_merge() -> None:
    """Whatever is sent, and whoever merges, the row with all that may arrive is less than a broker's limit."""
    ann, device = fill(new_user(START_MS), "a"), fill(new_user(START_MS), "d")
    assert_within_each_limit(ann)
    assert 1_500_000 < len(encode_row(ann)) < RECORD_BYTES_MAX - identity.ARRIVING_BYTES_MAX
    assert len(encode_row(device)) < identity.ARRIVING_BYTES_MAX

    own = (dict(ann.attributes), {name: each.count for name, each in ann.events.items()}, list(ann.dispatches))
    workspace = compile_workspace(read_definitions({}), 0)
    _, left_out = decide_merge(ann, "ann", "device:d", device, START_MS, workspace)

    assert (ann.attributes, {name: each.count for name, each in ann.events.items()}, list(ann.dispatches)) == own
    assert left_out > 1_500
    assert_within_each_limit(ann)
    assert len(encode_row(ann)) < RECORD_BYTES_MAX - identity.ARRIVING_BYTES_MAX


def test_what_fits_after_all_is_taken() -> None:
    """Beside a full row's attributes nothing new has room, while a shorter value, and a deletion, always have."""
    user = fill(new_user(START_MS), "a")
    first = next(iter(user.attributes))
    apply_attributes(user, Attributes({first: "short"}, START_MS))
    apply_attributes(user, Attributes({first: None, long_name(5, "z"): "v"}, START_MS))
    before = dict(user.attributes)
    with pytest.raises(BadInput, match="row_limit"):
        apply_attributes(user, Attributes({"n": 1, long_name(6, "z"): WIDE * 255}, START_MS))
    assert user.attributes == before


def test_short_names_and_values_have_the_room_that_they_had() -> None:
    """A user of a thousand attributes, events and products of usual lengths is refused none of them."""
    user = new_user(START_MS)
    for number in range(1_000):
        apply_attributes(user, Attributes({f"attribute of some length {number}": "v" * 250}, START_MS))
        apply_event(user, CustomEvent("e" * 250 + str(number), START_MS, {}), {}, START_MS)
        apply_purchase(user, Purchase("p" * 250 + str(number), "USD", Decimal(1), 1, START_MS, {}), {}, START_MS)
    assert (len(user.attributes), len(user.events), len(user.products)) == (1_000, 1_000, 1_000)


@pytest.mark.parametrize(("name", "chars_max"), [("anything", TEXT_CHARS_MAX), *LONGER_CHARS_MAX.items()])
def test_a_text_has_a_length(name: str, chars_max: int) -> None:
    """A text of an attribute is taken up to its length in characters, and refused beyond, by its name."""
    for more in (0, 1):
        text = ("a@" + WIDE * chars_max)[: chars_max + more] if name != "email" else f"{'a' * 64}@{'b' * (255 + more)}"
        value = to_json({"type": "attributes", "external_id": "ann", name: text})
        reading = read_record(None, value, START_MS)
        assert [(each.reason, each.field) for each in reading.rejected] == [("bad_value", name)] * more


KINDS: Final[dict[str, tuple[dict[str, Any], int]]] = {
    "event": ({"type": "event", "name": "e"}, EVENT_PROPERTIES_BYTES_MAX),
    "purchase": ({"type": "purchase", "product_id": "p", "currency": "USD", "price": 1}, PURCHASE_PROPERTIES_BYTES_MAX),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_body", [False, True])
def test_properties_have_bytes(kind: str, *, in_body: bool) -> None:
    """Properties are taken up to their bytes of JSON, whatever is around them, and refused beyond."""
    item, bytes_max = KINDS[kind]
    for more in (0, 1):
        properties = {"x": WIDE + "y" * (bytes_max - 12 + more)}
        assert len(to_json(properties)) == bytes_max + more
        value: dict[str, Any] = {**item, "external_id": "ann", "properties": properties, "else": " " * 200_000}
        if in_body:
            value = {f"{kind}s": [{name: each for name, each in value.items() if name != "type"}]}
        reading = read_record(None, to_json(value), START_MS)
        assert [(each.reason, each.field) for each in reading.rejected] == [("too_large", "properties")] * more
        assert len(reading.routed) == 1 - more


def test_no_letter_of_a_record_outgrows_it() -> None:
    """Short numbers of JSON, which take nine bytes in a letter, do not make one that no broker takes."""
    numbers = b",".join([b"1.5"] * 1_000_000)
    value = b'{"type":"event","external_id":"ann","name":"e","properties":{"x":[' + numbers + b"]}}"
    reading = read_record(None, value, START_MS)
    assert [each.reason for each in reading.rejected] == ["too_large"]
    assert sum(len(pack(each.event)) for each in reading.routed) < RECORD_BYTES_MAX


def test_a_letter_of_before_these_limits_is_refused_and_the_next_is_taken() -> None:
    """What lay in a mailbox already, and stopped each worker that folded it, is a dead letter, and the row stays."""
    world = Mailboxes({}, 1)
    values: list[Event] = [Attributes({f"a{number}": "x" * 240_000}, START_MS) for number in range(28)]
    for at, event in enumerate([*values, Attributes({"city": "Bern"}, START_MS)]):
        letter = Happening(event, Cause("events", 0, at, 0))
        world.append(Output("mailbox", 0, b"ann", pack(letter)))
    world.settle()

    refused = [each for each in world.effects if isinstance(each, Refused)]
    assert [(each.reason, each.field) for each in refused] == [("row_limit", f"a{number}") for number in range(28)]
    ann = world.user("ann")
    assert ann is not None
    assert ann.attributes == {"city": "Bern"}


def test_rows_that_arrive_at_once_have_room_together_or_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose parts do not fit beside others is left out and counted, and the known user goes on."""
    monkeypatch.setattr(identity, "PART_BYTES_MAX", 64)
    monkeypatch.setattr(identity, "ARRIVING_BYTES_MAX", 100)
    world = Mailboxes({}, 3)
    for value in (
        *({"type": "event", "name": f"e{number}", "device_id": "d1"} for number in range(20)),
        {"type": "identify", "device_id": "d1", "external_id": "ann"},
        {"type": "event", "name": "after", "external_id": "ann"},
        {"type": "event", "name": "late", "device_id": "d1"},
    ):
        world.send(value)
        world.settle()

    ann = world.user("ann")
    assert ann is not None
    assert sorted(ann.events) == ["after", "late"]
    assert isinstance(ann.links, Devices)
    assert ann.links.arriving == {}
    assert world.total("merge_values_left_out") == 1


def campaign(delay: str) -> dict[str, Any]:
    """A campaign that each `go` enters, and that reads what the event says."""
    document = {
        "name": "again",
        "trigger": {"event": {"name": "go"}},
        "channel": "log",
        "delay": delay,
        "re_eligible_after": "0s",
        "message": {"text": "{{ event_properties.${what} }}"},
    }
    return {"campaigns/again.yaml": document}


def go(world: Mailboxes, what: str = "x") -> None:
    """Let ann enter once more."""
    world.send({"type": "event", "name": "go", "external_id": "ann", "properties": {"what": what}})
    world.settle()


def refusals(world: Mailboxes) -> list[str]:
    """Of each send the limit that it is aborted for, nothing for one that goes."""
    return [each.refusal.partition(":")[0] for each in world.effects if isinstance(each, Send)]


@pytest.mark.parametrize("bound", [lambda patch: patch.setattr(room, "WAITING_MAX", 3), None])
def test_an_entry_that_may_not_wait_is_aborted(
    bound: Callable[[pytest.MonkeyPatch], None] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries beyond what a row lets wait, in count or in bytes, are sends to be aborted; the others go in time."""
    if bound is not None:
        bound(monkeypatch)
    world = Mailboxes(campaign("1h"), 1)
    for _ in range(5):
        go(world, "x" if bound is not None else "x" * 80_000)
    assert refusals(world) == ["user_waiting"] * 2

    world.tick(START_MS + 2 * HOUR_MS)
    world.settle()
    assert refusals(world) == ["user_waiting"] * 2 + [""] * 3


def test_a_dispatch_too_many_is_aborted_until_one_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many dispatches open the next is aborted; once one is final, it gives its place."""
    monkeypatch.setattr(room, "DISPATCHES_MAX", 2)
    world = Mailboxes(campaign("0s"), 1)
    for _ in range(3):
        go(world)
    assert refusals(world) == ["", "", "user_dispatches"]

    first = next(each for each in world.effects if isinstance(each, Send))
    world.outcome("ann", Outcome(first.dispatch_id, 1, "sent", START_MS))
    go(world)
    go(world)

    assert refusals(world) == ["", "", "user_dispatches", "", "user_dispatches"]
    ann = world.user("ann")
    assert ann is not None
    assert len(ann.dispatches) == 2


def test_a_send_has_bytes() -> None:
    """A send that reads more than a record holds is one to be aborted, and says how much it read."""
    large = {"x": "y" * SEND_BYTES_MAX}
    for more in ({"profile": large}, {"custom": large}, {"event_properties": large}):
        fields: dict[str, Any] = {"profile": {"a": 1}, "custom": {"b": 2}, "event_properties": {"c": 3}, **more}
        send = Send("d", "c", "log", "ann", 0, START_MS, **fields)
        [output] = to_outputs([send], 0)
        found = decode_send(output.value)
        assert (found.profile, found.custom, found.event_properties) == ({}, {}, {})
        assert found.refusal.startswith("send_bytes: ")
