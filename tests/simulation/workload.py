"""What a seed has happen: users who do things, some of them badly, and operators who pause, replay and release."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiokafka.partitioner import murmur2

PARTITIONS = 2
APP = "headrace"
USERS = ("ann", "bob", "cyd", "dee")
OWNERS = {"x1": "ann", "x2": "cyd"}
"""Whom a device will turn out to be; the anonymous and the known user lie in different partitions, each way round."""

ANONYMOUS = 0.3
WINDOW_S = 4
SPENT_S = 6
SPENT_OVER = 20
EPOCH_MS = 1_790_000_000_000
CAST_MS = EPOCH_MS + 4_500
"""When the scheduled campaign goes to whoever is `active` then."""

Item = tuple[str, str, dict[str, Any]]
"""The kind of an object (`event`, `purchase`, `attributes`, `session`, or `bad`), its user, and the object."""


def workspace() -> dict[str, Any]:
    """Segments whose windows end within seconds, and campaigns on every channel and kind of trigger."""
    files: dict[str, Any] = {}

    def segment(name: str, tree: dict[str, Any]) -> None:
        files[f"segments/{name}.yaml"] = {"name": name, "filter": tree}

    def campaign(name: str, trigger: dict[str, Any], channel: str, message: dict[str, Any], **more: Any) -> None:
        document = {"name": name, "trigger": trigger, "channel": channel, "message": message}
        files[f"campaigns/{name}.yaml"] = {**document, **more}

    mail = {"to": "{{ ${email_address} }}", "subject": "Hello {{ ${first_name} }}", "text": "{{ ${user_id} }}"}
    hook = {"body": '{"user": "{{ ${user_id} }}", "n": "{{ event_properties.${n} }}"}'}
    segment("active", {"event": {"name": "like", "at_least": 1, "within": f"{WINDOW_S}s"}})
    segment("fans", {"event": {"name": "like", "at_least": 2, "within": f"{WINDOW_S}s"}})
    segment("gold", {"attribute": {"path": "plan", "is": "gold"}})
    segment("lapsed", {"all": [{"event": {"name": "like", "at_least": 1}}, {"not": {"segment": "active"}}]})
    segment("spender", {"money_spent": {"over": SPENT_OVER, "within": f"{SPENT_S}s"}})
    campaign("back", {"segment_entered": "lapsed"}, "email", mail, re_eligible_after="2s", delay="1s")
    campaign("fan_a", {"segment_entered": "fans"}, "webhook", hook, re_eligible_after="1s")
    campaign("fan_b", {"segment_entered": "fans"}, "log", {"text": "{{ ${user_id} }}"}, re_eligible_after="1s")
    campaign(
        "golden", {"attribute_changed": "plan"}, "email", mail, re_eligible_after="0s", audience={"segment": "gold"}
    )
    campaign(
        "note", {"event": {"name": "like"}}, "log", {"text": "{{ event_properties.${n} }}"}, re_eligible_after="1s"
    )
    files["campaigns/everyone.yaml"] = {
        "name": "everyone",
        "schedule": {"at": datetime.fromtimestamp(CAST_MS / 1000, UTC).isoformat()},
        "audience": {"segment": "active"},
        "channel": "log",
        "message": {"text": "{{ ${user_id} }}"},
    }
    campaign("order", {"purchase": {}}, "webhook", hook, re_eligible_after="0s")
    campaign("view", {"event": {"name": "view"}}, "email", mail, re_eligible_after="0s")
    return files


CAMPAIGNS = ("back", "everyone", "fan_a", "fan_b", "golden", "note", "order", "view")


@dataclass
class Op:
    """One thing that happens at a time: a record for `events`, or a command of an operator."""

    at_s: float
    command: str
    args: dict[str, Any] = field(default_factory=dict)
    key: bytes | None = None
    value: bytes = b""
    partition: int = 0
    items: list[Item] = field(default_factory=list)
    """What the record holds, in its order."""
    acked_at: int = -1
    """The number of batches on the disk when it was acknowledged; -1 before."""
    must: bool = False


def partition_of(user: str) -> int:
    """Kafka's own partition of a user, by the hash of another library."""
    return int((murmur2(user.encode()) & 0x7FFFFFFF) % PARTITIONS)


def plan(dice: random.Random, length_s: float) -> list[Op]:
    """What a seed has happen, in order of time."""
    count = dice.randint(8, 36)
    ops = [_first(user) for user in USERS]
    for number in range(count):
        at_s = dice.random() * length_s
        if dice.random() < 0.14:
            ops.append(_operate(dice, at_s))
        else:
            ops.append(_record(dice, at_s, number))
    _identify(ops, length_s)
    return sorted(ops, key=lambda op: op.at_s)


def _identify(ops: list[Op], length_s: float) -> None:
    """Let some of it be done by devices that nobody is known on yet, or any more; dice of its own change no other."""
    dice = random.Random(length_s.hex())
    for op in ops[len(USERS) :]:
        kinds = [kind for kind, _, _ in op.items]
        if kinds in (["event"], ["purchase"], ["session"]) and dice.random() < ANONYMOUS:
            device = dice.choice(tuple(OWNERS))
            value = {name: each for name, each in json.loads(op.value).items() if name != "external_id"}
            _of_device(op, kinds[0], device, {**value, "device_id": device})
    for number in range(dice.randint(0, 4)):
        device = dice.choice(tuple(OWNERS))
        value = {"type": "identify", "device_id": device, "external_id": OWNERS[device], "n": number}
        op = Op(dice.random() * length_s, "append")
        _of_device(op, "identify", device, value)
        ops.append(op)


def _of_device(op: Op, kind: str, device: str, value: dict[str, Any]) -> None:
    user = f"device:{device}"
    op.key, op.value, op.partition = user.encode(), json.dumps(value).encode(), partition_of(user)
    op.items = [(kind, user, value)]


def _first(user: str) -> Op:
    """Everybody is known first, with an address."""
    fields = {"external_id": user, "email": f"{user}@example.com", "first_name": user.upper()}
    return _as_record(0.0, user, {**fields, "type": "attributes"}, [("attributes", user, fields)])


def _operate(dice: random.Random, at_s: float) -> Op:
    kind = dice.choice(("pause", "pause", "resume", "replay", "release", "discard", "flush"))
    if kind in ("pause", "resume"):
        name = dice.choice((*CAMPAIGNS, "*"))
        return Op(at_s, "pause", {"campaign": name, "paused": kind == "pause"})
    if kind == "replay":
        return Op(at_s, "replay", {"partition": dice.randrange(PARTITIONS)})
    return Op(at_s, kind, {"dispatch_id": "*"} if kind != "flush" else {})


def _record(dice: random.Random, at_s: float, number: int) -> Op:
    user = dice.choice(USERS)
    kind = dice.randrange(12)
    if kind < 5:
        value: dict[str, Any] = {"external_id": user, "name": dice.choice(("like", "like", "view"))}
        value["properties"] = {"n": number}
        if dice.random() < 0.4:
            value["id"] = f"e{dice.randrange(4)}"
        return _as_record(at_s, user, {**value, "type": "event"}, [("event", user, value)])
    if kind < 7:
        value = _purchase(dice, user, number)
        return _as_record(at_s, user, {**value, "type": "purchase"}, [("purchase", user, value)])
    if kind == 7:
        value = {"external_id": user, "plan": dice.choice(("gold", "free", None)), "number": number}
        if dice.random() < 0.6:
            value["email_subscribe"] = dice.choice(("subscribed", "unsubscribed"))
        return _as_record(at_s, user, {**value, "type": "attributes"}, [("attributes", user, value)])
    if kind == 8:
        value = {"external_id": user, "session_id": f"s{number}"}
        return _as_record(at_s, user, {**value, "type": "session_start"}, [("session", user, value)])
    if kind == 9:
        return _bad(dice, at_s, user, number)
    return _body(dice, at_s, number)


def _purchase(dice: random.Random, user: str, number: int) -> dict[str, Any]:
    price = dice.choice((3, 9.99, 12.5))
    return {
        "external_id": user,
        "product_id": dice.choice("pq"),
        "currency": "USD",
        "price": price,
        "quantity": dice.randint(1, 2),
        "properties": {"n": number},
    }


def _body(dice: random.Random, at_s: float, number: int) -> Op:
    """A whole track body of several users, some of its objects bad: in the order attributes, events, purchases."""
    body: dict[str, list[dict[str, Any]]] = {"attributes": [], "events": [], "purchases": []}
    items: list[Item] = []
    for at in range(dice.randint(1, 2)):
        value: dict[str, Any] = {"external_id": dice.choice(USERS), "city": f"c{number}.{at}"}
        if dice.random() < 0.2:
            value["push_tokens"] = "no"
        body["attributes"].append(value)
        items.append(("bad" if "push_tokens" in value else "attributes", value["external_id"], value))
    for _ in range(dice.randint(0, 3)):
        value = {"external_id": dice.choice(USERS), "name": "like", "properties": {"n": number}}
        body["events"].append(value)
        items.append(("event", value["external_id"], value))
    for _ in range(dice.randint(0, 2)):
        value = _purchase(dice, dice.choice(USERS), number)
        is_bad = dice.random() < 0.3
        body["purchases"].append({**value, "price": "much"} if is_bad else value)
        items.append(("bad" if is_bad else "purchase", value["external_id"], value))
    data = json.dumps(body).encode()
    return Op(at_s, "append", key=None, value=data, partition=dice.randrange(PARTITIONS), items=items)


def _bad(dice: random.Random, at_s: float, user: str, number: int) -> Op:
    value = dice.choice(
        (
            b"\xff%d" % number,
            b"{%d" % number,
            json.dumps({"type": "event", "external_id": user, "n": number}).encode(),
            json.dumps({"type": "dance", "external_id": user, "n": number}).encode(),
            json.dumps({"type": "event", "external_id": "other", "name": "like", "n": number}).encode(),
        )
    )
    return Op(at_s, "append", key=user.encode(), value=value, partition=partition_of(user), items=[("bad", user, {})])


def _as_record(at_s: float, user: str, value: dict[str, Any], items: list[Item]) -> Op:
    data = json.dumps(value).encode()
    return Op(at_s, "append", key=user.encode(), value=data, partition=partition_of(user), items=items)
