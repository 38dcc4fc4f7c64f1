"""The workload: numbered events of each user, by a seed, and a model of what they must come to."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos import devices
from tests.chaos.casts import PLAN, Casts, message
from tests.chaos.devices import Devices
from tests.chaos.tracked import Readers

USERS = 24
CROWD = 40
"""Users who do little but join and buy: those that scheduled campaigns go to."""

DELAY_S = 2
ACTIVE_AT = 3
NAMES = ("bump", "go", "mail", "later", "join", "buy")
BODY: Final = re.compile(r"((?:device:d|u)\d+) (go|later|mail) (\d+) ")
HITS_MAX: Final = 4
DEVICE_EVERY: Final = 60
OF_DEVICES: Final = 0.2
JOINS: Final = 0.005
BUYS: Final = 0.04
JOINED_AT_FIRST: Final = 0.6


def _campaign(name: str, channel: str, **more: str) -> dict[str, Any]:
    return {
        "name": name,
        "trigger": {"event": {"name": name}},
        "channel": channel,
        "message": message(channel, name + " {{ event_properties.${n} }}"),
        "re_eligible_after": "0s",
        **more,
    }


WORKSPACE: dict[str, dict[str, Any]] = {
    "segments/active.yaml": {"name": "active", "filter": {"event": {"name": "bump", "at_least": ACTIVE_AT}}},
    "campaigns/go.yaml": _campaign("go", "webhook"),
    "campaigns/later.yaml": _campaign("later", "webhook", delay=f"{DELAY_S}s"),
    "campaigns/mail.yaml": _campaign("mail", "email"),
}

Item = tuple[str, str, int]
"""User, event name and number."""


@dataclass
class Workload:
    """What was sent. `taken` was acknowledged; a `bump`, which carries no id, may have been taken unknown to us.

    All else is repeated under its id until it is acknowledged. What a device did counts as its owner's from the
    moment at which somebody says whose it is: `wanted` and `persons` name people.
    """

    seed: int
    taken: set[Item] = field(default_factory=set)
    unknown: set[Item] = field(default_factory=set)
    level: dict[str, int] = field(default_factory=dict)
    due_s: dict[int, float] = field(default_factory=dict)
    offered_s: dict[int, float] = field(default_factory=dict)
    acked_s: dict[int, float] = field(default_factory=dict)
    number: int = 0
    extra_at: int = 1
    casts: Casts = field(default_factory=Casts)
    joining: int = 0
    """So many join with the next part, whatever chance says."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.devices = Devices(random.Random(self.seed + 1))
        self.readers = Readers(random.Random(self.seed + 2))
        self._first = random.Random(self.seed + 3)
        self._to_join = list(self.users)
        self._first.shuffle(self._to_join)

    def part(self, count: int) -> list[dict[str, Any]]:
        """The next events, as the events topic takes them."""
        found = self.readers.next(HITS_MAX)
        for _ in range(min(self.joining, len(self._to_join))):
            found.append(self._numbered("join", self._to_join.pop()))
        self.joining = 0
        while len(found) < count:
            found += self._events()
        return found

    def arrivals(self) -> list[dict[str, Any]]:
        """Each user's address; many join the crowd at once."""
        found: list[dict[str, Any]] = [
            {
                "type": "attributes",
                "external_id": user,
                "email": f"{user}@example.com",
                "level": 0,
                "plan": PLAN,
                "id": f"a-{user}",
            }
            for user in self.users
        ]
        return found + [self._numbered("join", self._to_join.pop()) for _ in range(round(len(found) * JOINED_AT_FIRST))]

    @property
    def doers(self) -> list[str]:
        """Users who do things."""
        return [f"u{number}" for number in range(USERS)]

    @property
    def users(self) -> list[str]:
        """Every known user."""
        return [*self.doers, *(f"c{number}" for number in range(CROWD))]

    @property
    def rows(self) -> list[str]:
        """The keys of every row that there is."""
        return [*self.users, *self.devices.seen]

    def _numbered(self, name: str, user: str) -> dict[str, Any]:
        self.number += 1
        n = self.number
        event = {"type": "event", "external_id": user, "name": name, "properties": {"n": n}}
        return event if name == "bump" else {**event, "id": f"e{n}"}

    def _events(self) -> list[dict[str, Any]]:
        dice = self.dice
        user = dice.choice(self.doers)
        chance = dice.random()
        if chance < 0.1:
            self.number += 1
            return [{"type": "attributes", "external_id": user, "level": self.number, "id": f"e{self.number}"}]
        event = self._numbered(dice.choices(NAMES[:4], (4, 3, 2, 2))[0], user)
        if self.number % DEVICE_EVERY == 0:
            return [*self.devices.born(self.doers, self.number), event]
        if chance < 0.1 + OF_DEVICES:
            of_device = self.devices.next({name: value for name, value in event.items() if name != "external_id"})
            return [event if of_device is None else of_device]
        if chance < 0.1 + OF_DEVICES + BUYS:
            return [self._numbered("buy", dice.choice(self.users))]
        if chance < 0.1 + OF_DEVICES + BUYS + JOINS and self._to_join:
            return [self._numbered("join", self._to_join.pop())]
        return [event]

    def key_of(self, event: dict[str, Any]) -> str:
        """The key of its record."""
        return self.readers.key_of(event) if event["type"] == "engagement" else devices.key_of(event)

    def told(self, events: list[dict[str, Any]], *, acknowledged: bool) -> None:
        """What became of a part that was offered."""
        now_s = time.time()
        for event in events:
            if event["type"] == "attributes":
                if "level" in event:
                    self.level[event["external_id"]] = event["level"]
            elif event["type"] == "engagement":
                self.readers.told(event, acknowledged=acknowledged)
            elif event["type"] == "event":
                self._told(event, now_s, acknowledged=acknowledged)

    def _told(self, event: dict[str, Any], now_s: float, *, acknowledged: bool) -> None:
        item = (self.key_of(event), event["name"], event["properties"]["n"])
        if acknowledged:
            self.taken.add(item)
            self.unknown.discard(item)
            self.acked_s[item[2]] = now_s
        else:
            self.taken.discard(item)
            self.unknown.add(item)
            self.acked_s.pop(item[2], None)

    def offered(self, events: list[dict[str, Any]]) -> None:
        """Note the first offer of each, before which nothing can have come of it."""
        now_s = time.time()
        for event in events:
            if event["type"] != "event":
                continue
            n = event["properties"]["n"]
            self.offered_s.setdefault(n, now_s)
            if event["name"] == "later":
                self.due_s.setdefault(n, now_s + DELAY_S)

    # ---- what it must come to

    def person(self, key: str) -> str:
        """Whose a row's doings are."""
        return self.devices.person(key)

    def wanted(self, name: str) -> Counter[Item]:
        """Every taken item of a name, once."""
        return Counter((self.person(user), of, n) for user, of, n in self.taken if of == name)

    @property
    def doubtful(self) -> set[Item]:
        """What may have been taken or not."""
        return {(self.person(user), name, n) for user, name, n in self.unknown}

    def persons(self, texts: Iterable[str]) -> Counter[Item]:
        """The numbered events that messages name."""
        return Counter((self.person(user), name, int(n)) for text in texts for user, name, n in BODY.findall(text))

    def numbers(self, name: str, user: str) -> list[int]:
        """The numbers of what a user did, taken or not."""
        return [n for by, of, n in self.taken | self.unknown if of == name and by == user]

    def joined(self) -> set[str]:
        """Who was acknowledged to have joined."""
        return {user for user, name, _ in self.taken if name == "join"}

    def may_join_by(self, seconds: float) -> set[str]:
        """Who was offered to join before a time."""
        items = self.taken | self.unknown
        return {user for user, name, n in items if name == "join" and self.offered_s[n] <= seconds}

    @property
    def words(self) -> str:
        """How much of each kind there was, for whoever reads along."""
        sure = [each for each in self.casts.all if each.is_sure and not self.casts.skew_s(each)]
        told = f"{self.number} events, {len(self.devices.owners)} of {len(self.devices.seen)} devices identified"
        casts = f"{len(sure)} of {len(self.casts.all)} casts sure, of {sum(len(each.must) for each in sure)} members"
        return f"{told}, {casts}, {len(self.readers.taken)} opens and clicks"

    def write_workspace(self, folder: Path) -> None:
        """The definitions as files; `extra_at` is the threshold of a segment that is built anew over existing users."""
        extra = {"name": "extra", "filter": {"event": {"name": "bump", "at_least": self.extra_at}}}
        files = {**WORKSPACE, "segments/extra.yaml": extra, **self.casts.defined}
        for path in folder.glob("*/*.yaml"):
            if str(path.relative_to(folder)) not in files:
                path.unlink()
        for name, document in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".new")
            aside.write_text(json.dumps(document), "utf-8")
            aside.rename(path)  # whoever reads it now reads a whole one
