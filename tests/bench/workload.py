"""The jobs of the benchmark: their definitions, and seeded events about seeded users."""

import json
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from streams.codec import partition_of
from streams.times import format_time

EVENT_BYTES: Final = 350
EVENT_NAMES: Final = tuple(f"action_{at:02d}" for at in range(20))
PRODUCTS: Final = tuple(f"sku-{at:02d}" for at in range(30))
PLANS: Final = ("free", "basic", "pro", "team")
CITIES: Final = ("Berlin", "Lima", "Osaka", "Perth", "Quito", "Turin")
CAMPAIGNS: Final = 50
FIRING_SHARE: Final = 0.01
PURCHASE_SHARE: Final = 0.10
ATTRIBUTES_SHARE: Final = 0.05
PROBE: Final = "probe"

Files = dict[str, dict[str, Any]]


class Entry(NamedTuple):
    """One record for the events topic: its partition by user, its key and its value."""

    partition: int
    key: bytes
    value: bytes


def definitions(job: str) -> Files:
    """The workspace files of a job: J1 only counts, J2 has 100 segments and 50 campaigns."""
    if job == "J1":
        return {}
    files: Files = {}
    trees = [*_windows(), *_lifetimes()]
    for at, tree in enumerate(trees):
        name = f"seg_{at:03d}"
        files[f"segments/{name}.yaml"] = {"name": name, "filter": tree}
    for at in range(CAMPAIGNS):
        name = f"camp_{at:02d}"
        trigger = {"event": {"name": EVENT_NAMES[at % len(EVENT_NAMES)], "where": {"offer": at}}}
        files[f"campaigns/{name}.yaml"] = _campaign(name, trigger, "Hello {{ ${first_name} }}")
    return files


def with_probe(files: Files) -> Files:
    """The same with one segment and one campaign more, which every probe event enters and fires."""
    tree = {"event": {"name": PROBE}}
    campaign = _campaign(PROBE, {"event": {"name": PROBE}}, "{{ event_properties.${probe} }}")
    return {
        **files,
        f"segments/{PROBE}.yaml": {"name": PROBE, "filter": tree},
        f"campaigns/{PROBE}.yaml": campaign,
    }


def write_workspace(folder: Path, files: Files) -> Path:
    """Write the files as a workspace folder; JSON is YAML."""
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(body), encoding="utf-8")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _campaign(name: str, trigger: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "name": name,
        "trigger": trigger,
        "channel": "log",
        "re_eligible_after": "0s",
        "message": {"text": text},
    }


def _windows() -> Iterator[dict[str, Any]]:
    """Thirty segments that time alone can change, from ten seconds to ninety days."""
    lengths = ("10s", "1m", "1h", "1d", "7d", "30d", "90d")
    for at in range(15):
        within = lengths[at % len(lengths)]
        yield {"event": {"name": EVENT_NAMES[at], "at_least": 1 + at % 4, "within": within}}
    for at in range(5):
        where = {"amount": {"over": 10 * at}}
        yield {"event": {"name": EVENT_NAMES[15 + at], "at_least": 2, "within": "7d", "where": where}}
    for at in range(6):
        yield {"purchases": {"at_least": 1 + at % 3, "within": lengths[1 + at]}}
    for at in range(4):
        yield {"money_spent": {"over": 50 * (at + 1), "within": lengths[3 + at]}}


def _lifetimes() -> Iterator[dict[str, Any]]:
    """Seventy segments that only events can change: counts, sums, attributes, and trees of them."""
    for at in range(25):
        yield {"event": {"name": EVENT_NAMES[at % 20], "at_least": 2 + at}}
    for at in range(15):
        yield (
            {"attribute": {"path": "plan", "is": PLANS[at % 4]}}
            if at < 5
            else {"attribute": {"path": "score", "over": 10 * at}}
        )
    for at in range(10):
        yield {"purchases": {"product": PRODUCTS[at], "at_least": 1 + at % 2}}
    for at in range(5):
        yield {"money_spent": {"over": 100 * (at + 1)}}
    for at in range(10):
        counted = {"event": {"name": EVENT_NAMES[at], "at_least": 3}}
        yield {"all": [counted, {"not": {"purchases": {"at_least": 5}}}, {"attribute": {"path": "plan", "is": "pro"}}]}
    for at in range(5):
        yield {"any": [{"segment": f"seg_{30 + at:03d}"}, {"event": {"name": EVENT_NAMES[10 + at], "at_least": 9}}]}


class Users:
    """Draws users: `uniform`, or `zipf` with exponent 1.0, where the first is the most frequent."""

    def __init__(self, kind: str, count: int, random: Random) -> None:
        self._random = random
        self._count = count
        weights = accumulate(1 / rank for rank in range(1, count + 1)) if kind == "zipf" else ()
        self._edges = list(weights)

    def draw(self) -> str:
        """The external id of the next user."""
        if not self._edges:
            return f"user-{self._random.randrange(self._count):07d}"
        rank = bisect_left(self._edges, self._random.random() * self._edges[-1])
        return f"user-{rank:07d}"


class Stream:
    """An endless, seeded stream of events; the same seed gives the same events but for their base time."""

    def __init__(self, users: str, count: int, seed: int, base_ms: int, partitions: int) -> None:
        self._random = Random(seed)
        self._users = Users(users, count, self._random)
        self._now_ms = base_ms
        self._partitions = partitions
        self._targets: dict[str, int] = {}

    def take(self, count: int) -> list[Entry]:
        """The next events, a millisecond apart."""
        return [self._next() for _ in range(count)]

    def _next(self) -> Entry:
        self._now_ms += 1
        user, random = self._users.draw(), self._random
        kind = random.random()
        if kind < PURCHASE_SHARE:
            body = self._purchase()
        elif kind < PURCHASE_SHARE + ATTRIBUTES_SHARE:
            body = self._attributes()
        else:
            body = self._event()
        return self.entry(user, {**body, "external_id": user, "time": format_time(self._now_ms)})

    def entry(self, user: str, body: dict[str, Any]) -> Entry:
        """The record of a body, padded to 350 bytes; every kind carries its padding where it may."""
        partition = self._targets.get(user)
        if partition is None:
            partition = self._targets[user] = partition_of(user.encode(), self._partitions)
        room = EVENT_BYTES - len(json.dumps(body, separators=(",", ":")))
        place = body.get("properties", body)
        place["note"] = "x" * max(0, room - len(',"note":""'))
        return Entry(partition, user.encode(), json.dumps(body, separators=(",", ":")).encode())

    def _event(self) -> dict[str, Any]:
        random = self._random
        at = random.randrange(len(EVENT_NAMES))
        fires = random.random() < FIRING_SHARE / (1 - PURCHASE_SHARE - ATTRIBUTES_SHARE)
        offer = random.randrange(at, CAMPAIGNS, len(EVENT_NAMES)) if fires else -1
        properties = {
            "offer": offer,
            "amount": random.randrange(100),
            "page": f"/shop/{random.choice(PRODUCTS)}",
            "source": random.choice(("web", "ios", "android")),
            "new": random.random() < 0.5,
        }
        return {"type": "event", "name": EVENT_NAMES[at], "properties": properties}

    def _purchase(self) -> dict[str, Any]:
        random = self._random
        return {
            "type": "purchase",
            "product_id": random.choice(PRODUCTS),
            "currency": "USD",
            "price": random.randrange(100, 9_999) / 100,
            "quantity": 1,
            "properties": {"coupon": random.random() < 0.1, "channel": random.choice(("web", "app"))},
        }

    def _attributes(self) -> dict[str, Any]:
        random = self._random
        return {
            "type": "attributes",
            "first_name": random.choice(("Ann", "Bob", "Cem", "Dao", "Eva")),
            "plan": random.choice(PLANS),
            "score": random.randrange(200),
            "home_city": random.choice(CITIES),
        }
