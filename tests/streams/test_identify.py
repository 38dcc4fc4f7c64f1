"""A device's anonymous user turns out to be a known one: whatever happens when, it ends as one user's life."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.effects import CurrentsRecord
from streams.profiles.row import User
from streams.segments.membership import update_memberships
from tests.streams.mailboxes import START_MS, Mailboxes

DAY_MS = 86_400_000
KNOWN = ("ann", "bob")
DEVICES = ("d1", "d2", "d3")
OWNER = {"d1": "ann", "d2": "bob", "d3": "ann"}
STEPS_MAX = 120
COUNTED = ("purchases", "custom_events", "attributes", "sessions")


def _segment(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    return {f"segments/{name}.yaml": {"name": name, "filter": tree}}


def _campaign(name: str, trigger: dict[str, Any], **more: Any) -> dict[str, Any]:
    document = {"name": name, "trigger": trigger, "channel": "log", "message": {"text": "{{ ${user_id} }}"}, **more}
    return {f"campaigns/{name}.yaml": document}


FILES = {
    **_segment("buyers", {"purchases": {"at_least": 2}}),
    **_segment("lapsed", {"all": [{"purchases": {"at_least": 1}}, {"not": {"purchases": {"within": "2d"}}}]}),
    **_segment("fans", {"event": {"name": "like", "at_least": 3, "within": "1d"}}),
    **_segment("few", {"event": {"name": "like", "at_most": 2, "within": "3d"}}),
    **_segment("picky", {"event": {"name": "like", "where": {"n": {"over": 5}}, "within": "2d"}}),
    **_segment("spender", {"money_spent": {"over": 20, "within": "2d"}}),
    **_segment("quiet", {"not": {"event": {"name": "like", "at_least": 1}}}),
    **_segment("regular", {"all": [{"segment": "buyers"}, {"segment": "fans"}]}),
    **_campaign("thanks", {"segment_entered": "buyers"}),
    **_campaign("later", {"event": {"name": "like"}}, delay="6h", re_eligible_after="12h"),
}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def countable(user: User) -> dict[str, Any]:
    """All of a row that can be counted, and the segments that it is in."""
    return {
        "events": user.events,
        "products": user.products,
        "purchases": user.purchases,
        "sessions": user.sessions,
        "money": user.money,
        "counts": user.counts,
        "segments": set(user.memberships),
    }


def _amounts(user: User, now_ms: int) -> dict[str, Decimal]:
    return {key: window.within(now_ms, 2 * DAY_MS) for key, window in user.amounts.items()}


FIRST = "users.behaviors.app.FirstSession"  # of each identity, when it began


def exports(world: Mailboxes) -> Counter[tuple[str, str]]:
    """How often each record was written, by type and id."""
    records = [each for each in world.effects if isinstance(each, CurrentsRecord)]
    return Counter((each.event_type, str(each.fields["id"])) for each in records)


def _happening(kind: int, time_ms: int, number: int) -> dict[str, Any]:
    shared = {"time": _iso(time_ms)}
    if kind < 5:
        return {"type": "event", "name": ("like", "view")[kind % 2], "properties": {"n": number % 9}, **shared}
    if kind < 8:
        price = {"currency": ("USD", "EUR")[kind % 2], "price": 3.25 + number % 7, "quantity": 1 + kind % 2}
        return {"type": "purchase", "product_id": f"p{number % 3}", **price, **shared}
    if kind == 8:
        return {"type": "session_start", "app_id": "web", **shared}
    return {"type": "attributes", f"a{number}": number, **shared}


Step = tuple[str, int, int]


def drawn(seed: int) -> list[Step]:
    """What a seed has happen: some seeds identify early, others late, and some work seldom."""
    dice = random.Random(seed)
    kinds = ["send"] * 6 + ["anonymous"] * 8 + ["identify"] * dice.randint(0, 2)
    kinds += ["work"] * dice.randint(0, 6) + ["crash", "pass", "pass"]
    return [(dice.choice(kinds), dice.randrange(10**6), dice.randrange(10)) for _ in range(dice.randint(1, STEPS_MAX))]


def live(world: Mailboxes, steps: list[Step], *, as_one: bool, ids: bool) -> None:
    """Play steps: as they are, or with every device's events as those of its owner from the start.

    With `ids` events come again under an id, and all within a day, in which ids are remembered.
    """
    for number, (step, die, kind) in enumerate(steps):
        time_ms = world.now_ms - (die % 7) * DAY_MS // 3
        if step == "pass":
            world.now_ms += die % (DAY_MS // STEPS_MAX if ids else DAY_MS)
        elif step in ("send", "anonymous"):
            device = DEVICES[die % 3]
            who = {"external_id": KNOWN[die % 2]}
            if step == "anonymous":
                who = {"external_id": OWNER[device]} if as_one else {"device_id": device}
            value = {**_happening(kind, time_ms, number), **who}
            if ids and value["type"] in ("event", "purchase") and die % 5 < 3:
                value["id"] = f"{step}{device}{die % 17}"
            world.send(value, twice=die % 11 == 0)
        elif as_one:
            continue
        elif step == "identify":
            _identify(world, DEVICES[die % 3], twice=kind == 0)
        else:
            do = world.work if step == "work" else world.crash
            do(die % len(world.partitions), 1 + kind)


def _identify(world: Mailboxes, device: str, *, twice: bool = False) -> None:
    world.send({"type": "identify", "device_id": device, "external_id": OWNER[device]}, twice=twice)


@settings(max_examples=150)
@given(seed=st.integers(0, 10**9), partitions=st.integers(1, 4), ids=st.booleans())
def test_two_identities_then_a_merge_are_one_user_from_the_start(seed: int, partitions: int, ids: bool) -> None:
    """Whatever comes when, late or twice, over any partitions, slices and crashes, all is counted as of one user."""
    world, plain = Mailboxes(FILES, partitions), Mailboxes(FILES, 1)
    for each, as_one in ((world, False), (plain, True)):
        live(each, drawn(seed), as_one=as_one, ids=ids)
        for device in () if as_one else DEVICES:
            _identify(each, device)
        each.settle()
        each.tick(START_MS + 90 * DAY_MS)
        each.settle()

    for known in KNOWN:
        found, wanted = world.user(known), plain.user(known)
        assert found is not None
        if wanted is not None:
            assert countable(found) == countable(wanted)
            assert _amounts(found, plain.now_ms) == _amounts(wanted, plain.now_ms)
            assert found.attributes == wanted.attributes
        everything = range(len(world.workspaces[0].tests))
        assert update_memberships(found, world.workspaces[0], everything, plain.now_ms) == []
    for device in DEVICES:
        left = world.user(f"device:{device}")
        assert left is not None
        assert (left.memberships, left.events, left.timer_ms) == ({}, {}, None)
    for name in (*COUNTED, "duplicates"):
        assert world.total(name) == plain.total(name)
    assert world.total("users") == len(KNOWN)
    exported, wanted_ids = exports(world), exports(plain)
    assert max(exported.values(), default=1) == 1
    behaviours = Counter(kind for kind, _ in exported if kind not in ("users.UserOrphan", FIRST))
    assert behaviours == Counter(kind for kind, _ in wanted_ids if kind != FIRST)
    assert not world.dead
