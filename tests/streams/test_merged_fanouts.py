"""Whom a scheduled campaign chose as an anonymous user, and who is somebody by the time it is sent, gets it once."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import pack, partition_of
from streams.effects import Post
from streams.mailbox import FanStep, Forward, Tick
from streams.positions import Position
from streams.records import Output
from streams.sends import Send
from streams.times import format_time
from tests.streams.mailboxes import START_MS, Mailboxes

AFTER_MS = 5_000
EVERY_MS = 60_000
KNOWN = ("ann", "bob", "cyd")
DEVICES = ("d1", "d2", "d3", "d4")
OWNER = {"d1": "ann", "d2": "bob", "d3": "ann", "d4": "cyd"}
LIKERS = {"event": {"name": "like"}}


def files_of(**schedule: Any) -> dict[str, Any]:
    """A campaign to all who like something, at one moment where nothing else is said."""
    return {
        "campaigns/news.yaml": {
            "name": "news",
            "schedule": {"at": format_time(START_MS + AFTER_MS)},
            "audience": LIKERS,
            "channel": "log",
            "message": {"text": "hi"},
            **schedule,
        }
    }


class World(Mailboxes):
    """Partitions with fan-outs, whose steps come whenever they are asked for."""

    def step(self, at: int, to: str | None = None) -> None:
        """Append a step of each open fan-out of a partition as last committed, as its agent would."""
        position = msgspec.msgpack.decode(self.partitions[at].position, type=Position)
        for fanout in position.fanouts:
            self.append(Output("mailbox", at, None, pack(FanStep(fanout.number, fanout.cursor, to))))

    def like(self, **who: str) -> None:
        self.send({"type": "event", "name": "like", **who})

    def identify(self, device: str) -> None:
        self.send({"type": "identify", "device_id": device, "external_id": OWNER[device]})

    def finish(self) -> None:
        """Let every fan-out come to its end."""
        for _ in range(4):
            self.settle()
            for at in range(len(self.partitions)):
                self.step(at)
        self.settle()

    @property
    def sent(self) -> Counter[str]:
        return Counter(each.user for each in self.effects if isinstance(each, Send))

    @property
    def carried(self) -> list[Post]:
        """What anonymous users were chosen for and handed on."""
        return [each for each in self.posts if isinstance(each.letter, Forward) and b"chosen" in each.letter.letter]


def at_the_moment(world: World) -> None:
    """Let the moment come, in every partition."""
    world.tick(START_MS + AFTER_MS)
    world.settle()


def drawn(seed: int, world: World) -> None:
    """Likes, logins, slices, crashes and steps in any order, some before the moment and some behind it."""
    dice = random.Random(seed)
    partitions = len(world.partitions)
    logins = list(DEVICES)
    kinds = ["like", "device", "work", "work", "crash", "step", "step", "touch", "identify"]
    for _ in range(dice.randint(0, 60)):
        kind, at = dice.choice(kinds), dice.randrange(partitions)
        if kind == "like":
            world.send({"type": "attributes", "external_id": dice.choice(KNOWN), "a": dice.random()})
        elif kind == "device":
            world.send({"type": "attributes", "device_id": dice.choice(DEVICES), "b": dice.random()})
        elif kind == "identify" and logins:
            world.identify(logins.pop(dice.randrange(len(logins))))
        elif kind == "work":
            world.work(at, dice.randint(1, 4))
        elif kind == "crash":
            world.crash(at, dice.randint(1, 4))
        elif kind == "step":
            world.step(at, dice.choice([None, "b", "device:d2", "device:d3"]))
    for device in logins:
        world.identify(device)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**9),
    partitions=st.integers(1, 4),
    anonymous=st.sets(st.sampled_from(DEVICES)),
    known=st.sets(st.sampled_from(KNOWN)),
    before=st.sets(st.sampled_from(DEVICES)),
    after=st.sampled_from([None, "0s", "1d"]),
)
def test_each_person_gets_it_once(
    seed: int, partitions: int, anonymous: set[str], known: set[str], before: set[str], after: str | None
) -> None:
    """A person who, or any of whose devices, was in the audience at the moment gets it once, whatever comes when."""
    again = {} if after is None else {"re_eligible_after": after}
    world = World(files_of(**again), partitions)
    for device in DEVICES:
        if device in anonymous:
            world.like(device_id=device)
        else:
            world.send({"type": "attributes", "device_id": device, "b": 1})
    for user in sorted(known):
        world.like(external_id=user)
    world.settle()
    for device in sorted(before):
        world.identify(device)
    world.settle()
    at_the_moment(world)
    drawn(seed, world)
    world.finish()

    reached = known | {OWNER[device] for device in anonymous}
    by_device = Counter(OWNER[user.removeprefix("device:")] for user in world.sent if user.startswith("device:"))
    people = Counter({user: count for user, count in world.sent.items() if user in KNOWN})
    sent_before = set(by_device)
    # A device's fan-out may have sent before the device was anybody's; nobody can take that back.
    assert set(people) | sent_before == reached
    assert max(people.values(), default=1) == 1
    assert not world.dead


@pytest.fixture
def world() -> World:
    """An anonymous user who likes something, a known one who does not, and the moment has come in both partitions."""
    world = World(files_of(), 3)
    world.like(device_id="d1")
    world.send({"type": "attributes", "external_id": "ann", "a": 1})
    world.settle()
    at_the_moment(world)
    return world


def place(key: str) -> int:
    """The partition of a user of three."""
    return partition_of(key.encode(), 3)


def test_the_survivor_gets_what_the_device_was_chosen_for(world: World) -> None:
    """Merged between the moment and its step, the message goes to the known user, in the device's turn."""
    world.identify("d1")
    world.settle()
    assert world.sent == {}
    world.step(place("ann"))
    world.settle()
    assert world.sent == {}
    world.finish()

    assert world.sent == {"ann": 1}
    assert len(world.carried) == 1


def test_one_who_was_chosen_too_gets_it_once(world: World) -> None:
    """Where both were in the audience, the known user's own message is the one, whichever comes first."""
    for first in ("device:d1", "ann"):
        both = World(files_of(re_eligible_after="0s"), 3)
        both.like(device_id="d1")
        both.like(external_id="ann")
        both.settle()
        at_the_moment(both)
        both.identify("d1")
        both.settle()
        both.step(place(first))
        both.settle()
        both.finish()

        assert both.sent == {"ann": 1}


def test_one_who_had_it_as_an_anonymous_user_gets_no_second() -> None:
    """Where the device's turn came before it was somebody, and the known user's own comes behind, one was enough."""
    for after in ({}, {"re_eligible_after": "0s"}):
        both = World(files_of(**after), 3)
        both.like(device_id="d1")
        both.like(external_id="ann")
        both.settle()
        at_the_moment(both)
        both.step(place("device:d1"))
        both.settle()
        assert both.sent == {"device:d1": 1}
        both.identify("d1")
        both.settle()
        both.finish()

        assert both.sent == {"device:d1": 1}


def test_a_pause_and_a_cancellation_hold_it_too(world: World) -> None:
    """A step that may not go on hands nothing on; resumed, it does."""
    workspace = world.workspaces[0]
    world.workspaces[1] = msgspec.structs.replace(workspace, version=1, paused=frozenset({"news"}))
    world.workspaces[2] = msgspec.structs.replace(workspace, version=2)
    world.identify("d1")
    world.switch(1)
    world.finish()
    assert (world.sent, world.carried) == ({}, [])
    world.switch(2)
    world.finish()

    assert world.sent == {"ann": 1}


def test_one_who_says_no_to_the_channel_gets_nothing() -> None:
    """Consent is that of the known user, now."""
    mail = {"channel": "email", "message": {"to": "a@example.com", "subject": "s", "text": "t"}}
    world = World(files_of(**mail), 3)
    world.like(device_id="d1")
    world.send({"type": "attributes", "external_id": "ann", "email_subscribe": "unsubscribed"})
    world.settle()
    at_the_moment(world)
    world.identify("d1")
    world.finish()

    assert world.sent == {}
    assert len(world.carried) == 1


def test_a_letter_that_says_it_twice_is_taken_once(world: World) -> None:
    """The handed-on turn is numbered as all that an anonymous user posts, so a repeated letter sends nothing."""
    world.identify("d1")
    world.settle()
    world.step(place("device:d1"))
    world.settle()
    (post,) = world.carried
    world.append(Output("mailbox", place("ann"), b"ann", pack(post.letter)))
    world.finish()

    assert world.sent == {"ann": 1}


def test_a_partition_where_the_moment_has_not_come_decides_the_person_itself() -> None:
    """A partition behind in time drops the letter, and asks about the person as a whole once the moment comes."""
    world = World(files_of(), 3)
    world.like(device_id="d1")
    world.send({"type": "attributes", "external_id": "ann", "a": 1})
    world.settle()
    late = place("ann")
    world.now_ms = START_MS + AFTER_MS
    world.identify("d1")
    world.now_ms = START_MS + 1
    world.work(place("device:d1"))
    world.step(place("device:d1"))
    world.work(place("device:d1"))
    assert len(world.carried) == 1
    world.work(late)
    assert world.sent == {}
    world.tick(START_MS + AFTER_MS)
    world.finish()

    assert world.sent == {"ann": 1}


def test_waits_for_the_survivors_own_time() -> None:
    """Of a campaign by each user's clocks the known user waits for the own time, once."""
    schedule = {"at": format_time(START_MS + 20 * 3_600_000)[:-1].partition(".")[0], "local_time": True}
    world = World(files_of(schedule=schedule), 3)
    world.like(device_id="d1")
    world.send({"type": "attributes", "external_id": "ann", "time_zone": "Europe/Berlin"})
    world.settle()
    world.tick(START_MS + 7 * 3_600_000)
    world.settle()
    world.identify("d1")
    world.finish()
    assert world.sent == {}
    world.tick(START_MS + 48 * 3_600_000)
    world.settle()

    assert world.sent == {"ann": 1}


def test_one_who_had_it_where_the_clock_is_ahead_waits_for_no_second() -> None:
    """Whoever waits for a moment that has come where the anonymous user is, and had it there, gets it once."""
    due_ms = START_MS // 1000 * 1000 + 20 * 3_600_000
    schedule = {"at": format_time(due_ms)[:-1].partition(".")[0], "local_time": True}
    world = World(files_of(schedule=schedule, re_eligible_after="0s"), 3)
    world.like(device_id="d1")
    world.like(external_id="ann")
    world.settle()
    world.tick(due_ms - 13 * 3_600_000)
    world.finish()
    world.now_ms = due_ms + 8_000
    world.append(Output("mailbox", partition_of(b"device:d1", 3), None, pack(Tick(world.now_ms))))
    world.settle()
    assert world.sent == {"device:d1": 1}

    world.now_ms = due_ms - 1_000
    world.identify("d1")
    world.settle()
    world.tick(due_ms + 48 * 3_600_000)
    world.finish()

    assert world.sent == {"device:d1": 1}
