"""The rules of the simulation's workspace, written down a second time from what they mean.

Nothing of the product is imported: letters are read as plain arrays, ids are hashed here. It goes through a
mailbox letter by letter and asks every segment at every millisecond at which it could change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

WINDOW_MS, SPENT_MS, SPENT_OVER = 4_000, 6_000, 20
DAY_MS = 86_400_000
SEGMENTS = ("active", "fans", "gold", "lapsed", "spender")
EMAILS = {"back", "golden", "view"}
CAST = "everyone"
CHOSEN = b"chosen"
"""Owed for each anonymous user whom the scheduled campaign had chosen before it turned out to be somebody."""

AGAIN_MS = {"back": 2_000, "fan_a": 1_000, "fan_b": 1_000, "golden": 0, "note": 1_000, "order": 0, "view": 0}


@dataclass
class User:
    """What the model knows of one user."""

    likes: list[int] = field(default_factory=list)
    spent: list[tuple[int, Decimal]] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    inside: set[str] = field(default_factory=set)
    seen: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)
    waiting: list[tuple[int, str, int]] = field(default_factory=list)
    asked: bool = False


@dataclass
class Model:
    """One mailbox partition."""

    paused_of: list[list[str]]
    handed: dict[str, User]
    """Over all partitions: what was known of each anonymous user when it turned out to be somebody."""
    owed: Counter[bytes]
    """Over all partitions: late events of such users, less what has come to the known ones."""
    cast_ms: int | None
    members: list[str] = field(default_factory=list)
    cursor: str = ""
    users: defaultdict[str, User] = field(default_factory=lambda: defaultdict(User))
    changes: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    sends: Counter[str] = field(default_factory=Counter)
    clock: int = 0
    begun: bool = False
    version: int = 0
    causes: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    taken: dict[tuple[str, str], int] = field(default_factory=dict)
    merged: set[str] = field(default_factory=set)

    def waits(self, value: bytes) -> bool:
        """Whether a letter is about an anonymous user who is still to be handed over in another partition."""
        kind, *rest = msgspec.msgpack.decode(value)
        return kind == "merge" and bool(rest[5]) and rest[0] not in self.handed

    def letter(self, append_ms: int, key: bytes | None, value: bytes) -> None:
        """Let time come this far, then apply one letter."""
        kind, *rest = msgspec.msgpack.decode(value)
        until = max(self.clock, append_ms)
        if self.cast_ms is not None and self.cast_ms <= until:
            self._until(self.cast_ms)
            if self.begun and not self._is_paused(CAST):  # whoever is active then, by no later event
                self.members = sorted(name for name, user in self.users.items() if "active" in user.inside)
            self.cast_ms = None
        self._until(until)
        self.begun = True
        if kind == "switch":
            self.version = max(self.version, rest[0])
        name = (key or b"").decode()
        if kind == "fan":
            self._step(*rest)
        elif kind in ("happening", "identify") and self._is_new(rest[-1]):
            if kind == "identify":
                self._identify(name)
            elif name in self.merged:
                self.owed[value] += 1
            else:
                self._event(name, rest[0])
        elif kind in ("merge", "forward") and self.taken.get((name, rest[0]), -1) < rest[1]:
            self.taken[name, rest[0]] = rest[1]
            if kind == "merge":
                self._merge(name, rest[0], is_empty=not rest[5])
            else:
                self._forward(name, rest[2])

    def _is_new(self, cause: list[Any]) -> bool:
        topic, partition, offset, item = cause
        if (offset, item) <= self.causes.get((topic, partition), (-1, -1)):
            return False
        self.causes[topic, partition] = offset, item
        return True

    # ---- anonymous and known users

    def _identify(self, name: str) -> None:
        if name in self.merged:
            return
        self.merged.add(name)
        user = self.users.pop(name, None)
        if user is None:
            return
        for segment in user.inside:
            self._tell(segment, name, enters=False)
        self.handed[name] = user

    def _merge(self, name: str, device: str, *, is_empty: bool) -> None:
        user = self.users[name]
        if is_empty:
            return
        other = self.handed[device]
        user.likes += other.likes
        user.spent += other.spent
        user.attributes = {**other.attributes, **user.attributes}
        user.seen = {each: max(user.seen.get(each, 0), other.seen.get(each, 0)) for each in {*user.seen, *other.seen}}
        for at, campaign, entry in other.waiting:
            gap = abs(user.last[campaign] - other.last[campaign]) if campaign in user.last else AGAIN_MS[campaign]
            if gap >= AGAIN_MS[campaign]:
                user.waiting.append((at, campaign, user.entries[campaign] + entry))
        for campaign, last in other.last.items():
            user.last[campaign] = max(user.last.get(campaign, last), last)
        user.entries += other.entries
        self._release(name, self.clock)
        self._cross(name, self.clock, other.inside)

    def _forward(self, name: str, letter: bytes) -> None:
        kind, *rest = msgspec.msgpack.decode(letter)
        if kind == "happening":
            self.owed[letter] -= 1
            self._event(name, rest[0])
        elif kind == "chosen":
            self.owed[CHOSEN] -= 1
            if self.cast_ms is None and name not in self.members:
                self._cast(name)

    def _step(self, number: int, after: str, to: str | None) -> None:
        """The next of the scheduled campaign's members, if it is not paused."""
        if after <= self.cursor and not self._is_paused(CAST):
            for name in [each for each in self.members if each > self.cursor and (to is None or each <= to)]:
                if name in self.merged:
                    self.owed[CHOSEN] += 1
                else:
                    self._cast(name)
            self.cursor = "~" if to is None else max(self.cursor, to)

    def _cast(self, name: str) -> None:
        """Whoever was reached before, perhaps as an anonymous user, is not reached again."""
        user = self.users[name]
        if not self._is_paused(CAST) and not user.entries[CAST]:
            user.entries[CAST] = 1
            self._send(CAST, name, 1)

    # ---- time

    def _until(self, until: int) -> None:
        while (due := self._next(until)) is not None:
            self.clock = due[0]
            for name in due[1]:
                self._due(name, due[0])
        self.clock = until

    def _next(self, until: int) -> tuple[int, list[str]] | None:
        """The first moment, not after `until`, at which time alone changes somebody, and whom, in order of name."""
        found = []
        for name, user in self.users.items():
            times = [at + WINDOW_MS for at in user.likes] + [at + SPENT_MS for at, _ in user.spent]
            times += [at for at, _, _ in user.waiting]
            found += [(at, name) for at in times if self.clock < at <= until]
            found += [(self.clock, name) for at, _, _ in user.waiting if at <= self.clock]
        first = min(found, default=None)
        return None if first is None else (first[0], sorted({name for at, name in found if at == first[0]}))

    def _due(self, name: str, now: int) -> None:
        self._release(name, now)
        self._cross(name, now)

    def _release(self, name: str, now: int) -> None:
        user = self.users[name]
        for at, campaign, entry in sorted(user.waiting):
            if at <= now:
                user.waiting.remove((at, campaign, entry))
                if not self._is_paused(campaign) and self._consents(user, campaign):
                    self._send(campaign, name, entry)

    # ---- what happens

    def _event(self, name: str, event: list[Any]) -> None:
        user, now = self.users[name], self.clock
        kind = event[0]
        event_id = event[-1]
        if event_id is not None:
            if event_id in user.seen and user.seen[event_id] // 1000 >= (now - DAY_MS) // 1000:
                return
            user.seen[event_id] = now
        starting: list[str] = []
        if kind == "event":
            starting = [
                each for each in {"like": ("note",), "view": ("view",)}.get(event[1], ()) if self._may(each, user)
            ]
        elif kind == "purchase":
            starting = ["order"] if self._may("order", user) else []
        changed = self._write(user, kind, event)
        for campaign in starting:
            self._enter(campaign, name, event_ms=now)
        self._cross(name, now)
        if changed and user.attributes.get("plan") is not None and "gold" in user.inside and self._may("golden", user):
            self._enter("golden", name, event_ms=now)

    def _write(self, user: User, kind: str, event: list[Any]) -> bool:
        """Write an event into what is known; says whether the plan has become another one."""
        if kind == "event" and event[1] == "like":
            user.likes.append(event[2])
        elif kind == "purchase":
            user.spent.append((event[5], Decimal(str(event[3])) * event[4]))
        elif kind == "attributes":
            old = user.attributes.get("plan")
            user.attributes |= event[1]
            return "plan" in event[1] and user.attributes["plan"] != old
        return False

    # ---- segments and campaigns

    def _holds(self, segment: str, user: User, now: int) -> bool:
        # What was applied counts at once, though a clock that was set back may put its time ahead of now.
        likes = sum(1 for at in user.likes if now - WINDOW_MS < at)
        if segment == "active":
            return likes >= 1
        if segment == "fans":
            return likes >= 2
        if segment == "gold":
            return bool(user.attributes.get("plan") == "gold")
        if segment == "lapsed":
            return bool(user.likes) and likes < 1
        return sum((amount for at, amount in user.spent if now - SPENT_MS < at), Decimal(0)) > SPENT_OVER

    def _tell(self, segment: str, name: str, *, enters: bool) -> None:
        moment = datetime.fromtimestamp(self.clock / 1000, UTC).isoformat(timespec="milliseconds")
        self.changes[segment, name, "enter" if enters else "leave", moment.replace("+00:00", "Z")] += 1

    def _cross(self, name: str, now: int, stood: set[str] | None = None) -> None:
        """Bring segments up to date; a crossing into where a user merged into this one `stood` starts nothing."""
        user = self.users[name]
        crossings = []
        for segment in SEGMENTS:
            holds = self._holds(segment, user, now)
            if holds != (segment in user.inside):
                (user.inside.add if holds else user.inside.discard)(segment)
                crossings.append((segment, holds))
        for segment, holds in crossings:
            self._tell(segment, name, enters=holds)
            if stood is not None and (segment in stood) == holds:
                continue
            starts = {"lapsed": ("back",), "fans": ("fan_a", "fan_b")}.get(segment, ()) if holds else ()
            for campaign in [each for each in starts if self._may(each, user)]:
                self._enter(campaign, name, event_ms=now)

    def _is_paused(self, campaign: str) -> bool:
        return bool({campaign, "*"} & set(self.paused_of[self.version]))

    def _may(self, campaign: str, user: User) -> bool:
        if self._is_paused(campaign):
            return False
        return campaign not in user.last or max(self.clock - user.last[campaign], 0) >= AGAIN_MS[campaign]

    def _consents(self, user: User, campaign: str) -> bool:
        return campaign not in EMAILS or user.attributes.get("email_subscribe") != "unsubscribed"

    def _enter(self, campaign: str, name: str, event_ms: int) -> None:
        user = self.users[name]
        if not self._consents(user, campaign):
            return
        user.last[campaign] = self.clock
        user.entries[campaign] += 1
        if campaign == "back":
            user.waiting.append((min(event_ms, self.clock) + 1_000, campaign, user.entries[campaign]))
        else:
            self._send(campaign, name, user.entries[campaign])

    def _send(self, campaign: str, name: str, entry: int) -> None:
        parts = ("dispatch", campaign, name, "1", str(entry))
        data = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        self.sends[blake2b(data, digest_size=16).hexdigest()] += 1


def expected(
    partitions: list[list[tuple[int, bytes | None, bytes]]], paused_of: list[list[str]], cast_ms: int
) -> tuple[list[Model], Counter[bytes]]:
    """The models after all letters of all partitions, and what late events were lost, or came too often.

    `paused_of` has the paused campaigns of each version, `cast_ms` is when the scheduled one goes out. A partition
    waits for what others hand to it.
    """
    handed: dict[str, User] = {}
    owed: Counter[bytes] = Counter()
    models = [Model(paused_of, handed, owed, cast_ms) for _ in partitions]
    left = [list(reversed(letters)) for letters in partitions]
    while any(left):
        before = sum(map(len, left))
        for model, letters in zip(models, left, strict=True):
            while letters and not model.waits(letters[-1][2]):
                model.letter(*letters.pop())
        assert sum(map(len, left)) < before, "partitions wait for each other"
    return models, Counter({letter: count for letter, count in owed.items() if count})
