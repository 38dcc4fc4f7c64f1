"""The workload: numbered events of each user, by a seed, and a model of what they must come to."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USERS = 24
DELAY_S = 2
ACTIVE_AT = 3
NAMES = ("bump", "go", "mail", "later")


def _campaign(name: str, channel: str, message: dict[str, str], **more: str) -> dict[str, Any]:
    trigger = {"event": {"name": name}}
    return {
        "name": name,
        "trigger": trigger,
        "channel": channel,
        "message": message,
        "re_eligible_after": "0s",
        **more,
    }


_TEXT = "{{ ${user_id} }} %s {{ event_properties.${n} }} "
WORKSPACE: dict[str, dict[str, Any]] = {
    "segments/active.yaml": {"name": "active", "filter": {"event": {"name": "bump", "at_least": ACTIVE_AT}}},
    "campaigns/go.yaml": _campaign("go", "webhook", {"body": _TEXT % "go"}),
    "campaigns/later.yaml": _campaign("later", "webhook", {"body": _TEXT % "later"}, delay=f"{DELAY_S}s"),
    "campaigns/mail.yaml": _campaign(
        "mail", "email", {"to": "{{ ${email_address} }}", "subject": "Hi", "text": _TEXT % "mail"}
    ),
}


def write_workspace(folder: Path, extra_at: int) -> None:
    """The definitions as files; `extra_at` is the threshold of a segment that is built anew over existing users."""
    extra = {"name": "extra", "filter": {"event": {"name": "bump", "at_least": extra_at}}}
    for name, document in {**WORKSPACE, "segments/extra.yaml": extra}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), "utf-8")


Item = tuple[str, str, int]
"""User, event name and number."""


@dataclass
class Workload:
    """What was sent. `taken` was acknowledged; a `bump`, which carries no id, may have been taken unknown to us.

    All else is repeated under its id until it is acknowledged.
    """

    seed: int
    taken: set[Item] = field(default_factory=set)
    unknown: set[Item] = field(default_factory=set)
    level: dict[str, int] = field(default_factory=dict)
    due_s: dict[Item, float] = field(default_factory=dict)
    number: int = 0
    extra_at: int = 1

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)

    def part(self, count: int) -> list[dict[str, Any]]:
        """The next events, as the events topic takes them."""
        return [self._event() for _ in range(count)]

    def arrivals(self) -> list[dict[str, Any]]:
        """Each user's address."""
        return [
            {"type": "attributes", "external_id": user, "email": f"{user}@example.com", "level": 0, "id": f"a-{user}"}
            for user in self.users
        ]

    @property
    def users(self) -> list[str]:
        """Their ids."""
        return [f"u{number}" for number in range(USERS)]

    def _event(self) -> dict[str, Any]:
        self.number += 1
        user, n = self.dice.choice(self.users), self.number
        if self.dice.random() < 0.1:
            return {"type": "attributes", "external_id": user, "level": n, "id": f"e{n}"}
        name = self.dice.choices(NAMES, (4, 3, 2, 2))[0]
        event = {"type": "event", "external_id": user, "name": name, "properties": {"n": n}}
        return event if name == "bump" else {**event, "id": f"e{n}"}

    def told(self, events: list[dict[str, Any]], *, acknowledged: bool) -> None:
        """What became of a part that was offered."""
        for event in events:
            if event["type"] == "attributes":
                self.level[event["external_id"]] = event["level"]
                continue
            item = (event["external_id"], event["name"], event["properties"]["n"])
            if acknowledged:
                self.taken.add(item)
                self.unknown.discard(item)
            else:
                self.taken.discard(item)
                self.unknown.add(item)

    def offered(self, events: list[dict[str, Any]]) -> None:
        """Note the earliest moment at which a delay may begin: the first offer."""
        for event in events:
            if event.get("name") == "later":
                item = (event["external_id"], "later", event["properties"]["n"])
                self.due_s.setdefault(item, time.time() + DELAY_S)

    def wanted(self, name: str) -> Counter[Item]:
        """Every taken item of a name, once."""
        return Counter(item for item in self.taken if item[1] == name)
