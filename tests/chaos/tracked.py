"""Mails that the mail server took, and what their readers do with them: the engagements that a door would append."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, Final, NamedTuple

from tests.chaos.devices import PREFIX

URL: Final = "http://links.example"
KEY: Final = "a-signing-key-of-the-chaos-harness-0001"
_TOKEN: Final = re.compile(re.escape(URL) + r"/t/([oc])/([\w-]+)")
_USER: Final = re.compile(r"<p>(\S+) ")
READ: Final = 0.5
CLICKED: Final = 0.4
AGAIN: Final = 0.3
MACHINE: Final = 0.2
LATER: Final = 0.5
TURNS: Final = 0.5
"""Of the parts that are offered, how many have one that was put off: a device may be somebody's by then."""

WAITING_MAX: Final = 200
"""Of what readers do, so that a mail server that was away for long does not drown the rest."""

Hit = tuple[str, bool, str]
"""`open` or `click`, whether a machine did it, and the dispatch."""


class Mail(NamedTuple):
    """What a mail says of itself."""

    dispatch_id: str
    user: str
    page: str
    tokens: dict[str, str]


def read_mail(content: bytes) -> Mail:
    """Read a mail as its reader's program would."""
    parsed = message_from_bytes(content, policy=default)
    assert isinstance(parsed, EmailMessage)
    body = parsed.get_body(("html",))
    assert body is not None, "every mail of the workload has a page"
    page = str(body.get_content())
    found = _USER.search(page)
    assert found is not None, page
    return Mail(str(parsed["X-Headrace-Dispatch"]), found[1], page, dict(_TOKEN.findall(page)))


@dataclass
class Readers:
    """What readers do; `hits` is what each engagement's id stands for, and whose mail it was."""

    dice: random.Random
    hits: dict[str, tuple[Hit, str]] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    later: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0

    def read(self, content: bytes) -> None:
        """A mail has come, which is opened and clicked, or not, by people and by machines."""
        mail, dice = read_mail(content), self.dice
        is_anonymous = mail.user.startswith(PREFIX)  # who may be somebody when it is opened again
        if not is_anonymous and (dice.random() > READ or len(self.waiting) > WAITING_MAX):
            return
        self._add("open", mail)
        if is_anonymous:
            self._add("open", mail, is_late=True)
        for kind, chance in (("open", AGAIN), ("click", CLICKED), ("click", CLICKED * AGAIN)):
            if dice.random() < chance:
                self._add(kind, mail)

    def _add(self, kind: str, mail: Mail, *, is_late: bool = False) -> None:
        self.number += 1
        dice, name = self.dice, f"g{self.number}"
        is_machine = dice.random() < MACHINE
        self.hits[name] = ((kind, is_machine, mail.dispatch_id), mail.user)
        item = {"type": "engagement", "kind": kind, "token": mail.tokens[kind[0]], "id": name, "user_agent": "Reader"}
        (self.later if dice.random() < LATER else self.waiting).append(
            {**item, "machine": True} if is_machine else item
        )

    def next(self, most: int) -> list[dict[str, Any]]:
        """What they do next."""
        if self.later and self.dice.random() < TURNS:
            self.waiting.append(self.later.pop(0))
        part, self.waiting = self.waiting[:most], self.waiting[most:]
        return part

    def key_of(self, event: dict[str, Any]) -> str:
        """The user's key, as a door takes it from the token."""
        return self.hits[event["id"]][1]

    def told(self, event: dict[str, Any], *, acknowledged: bool) -> None:
        """Whether it was kept."""
        (self.taken.add if acknowledged else self.taken.discard)(event["id"])

    def wanted(self) -> Counter[Hit]:
        """Everything that was kept."""
        return Counter(self.hits[name][0] for name in self.taken)
