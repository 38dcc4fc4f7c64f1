"""Which rows the exports must hold after a replay, written down a second time from what the ids mean.

Nothing of Headrace is imported. An id is a blake2b digest of parts, each preceded by its length in four
bytes, big-endian; the first part says what kind of id it is:

- a user's `user_id`: 12 bytes of ("user", external id)
- a topic's id: 8 bytes of ("topic", application, topic)
- a dispatch's id: 16 bytes of ("dispatch", campaign, external id, the user's life, its n-th entry)
- an export row's `id`, printed as a UUID: 16 bytes of ("currents", …) and
  for a behaviour "topic id/partition/offset/item/unit" of the record that caused it,
  for a message its dispatch id, its full event type and the number of the attempt,
  for a campaign's or a variation's API id "definition", the kind and the name.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

from aiokafka.partitioner import murmur2

from tests.oracle.cdnow import Purchase, Workspace, live

DAY = 86_400
TYPES = ("event", "purchase", "session_start", "session_end")
EMAIL = {"welcome", "win_back"}
PERSON = {"gender": "gender", "country": "country", "language": "language", "time_zone": "timezone"}

Row = dict[str, Any]
Rows = dict[tuple[str, str], Row]
"""(event type, id) -> the fields that are not null."""


def digest(size: int, *parts: str) -> str:
    """Hash parts that cannot be shifted into each other."""
    data = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return blake2b(data, digest_size=size).hexdigest()


def uuid(*parts: str) -> str:
    """The id of an export row, or of a definition."""
    text = digest(16, "currents", *parts)
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def partition_of(key: str, partitions: int) -> int:
    """Kafka's partition of a key, by the hash of another library."""
    return (int(murmur2(key.encode())) & 0x7FFFFFFF) % partitions


def seconds(text: str) -> int:
    """The second of an ISO 8601 time that ends in Z."""
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp())


@dataclass
class User:
    """What the model knows of one user."""

    purchases: list[Purchase] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    has_started: bool = False
    applied: dict[str, int] = field(default_factory=dict)
    """Event id -> the second at which it was applied."""


@dataclass
class Model:
    """Reads the lines that were sent, in their order; their times never fall."""

    app: str
    partitions: int
    workspace: Workspace
    users: dict[str, User] = field(default_factory=dict)
    rows: Rows = field(default_factory=dict)
    refused: int = 0
    end: int = 0
    _offsets: Counter[int] = field(default_factory=Counter)

    def send(self, line: bytes) -> None:
        """Take one line as a record of its own; an unknown type and a price in words are refused."""
        try:
            value = json.loads(line)
        except ValueError:
            value = {}
        name = str(value.get("external_id", ""))
        partition = partition_of(name, self.partitions) if name else 0
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        if value.get("type") == "attributes":
            self.users.setdefault(name, User()).attributes |= value
        elif value.get("type") not in TYPES or isinstance(value.get("price"), str):
            self.refused += 1
        else:
            self._apply(name, value, f"{digest(8, 'topic', self.app, 'events')}/{partition}/{offset}/0/")

    def _apply(self, name: str, value: Row, cause: str) -> None:
        user, now = self.users.setdefault(name, User()), seconds(value["time"])
        assert now >= self.end, "the model wants its lines in order of time"
        self.end = now
        event_id = value.get("id", "")
        if event_id and now - user.applied.get(event_id, -DAY - 1) <= DAY:
            return
        user.applied[event_id] = now
        for unit in range(value.get("quantity", 1)):
            event_type, fields = _behaviour(value)
            self._add(event_type, uuid(cause + str(unit)), name, now, fields)
            if value["type"] == "session_start" and not user.has_started:
                user.has_started = True
                person = {field: user.attributes.get(known) for known, field in PERSON.items()}
                known = {field: what for field, what in person.items() if what is not None}
                self._add("users.behaviors.app.FirstSession", uuid(cause + "1"), name, now, {**fields, **known})
            if value["type"] == "purchase":
                user.purchases.append(Purchase(name, now, Decimal(str(value["price"]))))

    def finish(self) -> Rows:
        """Every row, those of the messages that the users' purchases caused up to the last time included."""
        for name, user in self.users.items():
            for campaign, times in live(self.workspace, user.purchases, self.end).entries.items():
                for number, at in enumerate(times, 1):
                    self._message(name, user, campaign, number, at)
        return self.rows

    def _message(self, name: str, user: User, campaign: str, number: int, at: int) -> None:
        """What became of the n-th entry: sent, or given up where there is no address; nothing without consent."""
        if campaign in EMAIL and user.attributes.get("email_subscribe") == "unsubscribed":
            return
        address = user.attributes.get("email") or ""
        kind = "Abort" if campaign in EMAIL and not address else "Send"
        event_type = f"users.messages.{'email' if campaign in EMAIL else 'webhook'}.{kind}"
        dispatch = digest(16, "dispatch", campaign, name, "1", str(number))
        fields = {
            "dispatch_id": dispatch,
            "campaign_id": uuid("definition", "campaign", campaign),
            "campaign_name": campaign,
            "message_variation_id": uuid("definition", "variation", campaign),
        }
        if campaign in EMAIL:
            fields["email_address"] = address
        if kind == "Abort":
            fields |= {"abort_type": "no_address", "abort_log": "no_address"}
        self._add(event_type, uuid(dispatch, event_type, "1"), name, at, fields)

    def _add(self, event_type: str, row_id: str, name: str, at: int, fields: Row) -> None:
        owner = {"id": row_id, "user_id": digest(12, "user", name), "external_user_id": name, "time": at}
        assert (event_type, row_id) not in self.rows, "two rows of one id"
        self.rows[event_type, row_id] = owner | fields


def _behaviour(value: Row) -> tuple[str, Row]:
    """The full event type of a line, and the fields that only this type has."""
    kind = value["type"]
    if kind in ("session_start", "session_end"):
        name = "SessionStart" if kind == "session_start" else "SessionEnd"
        return f"users.behaviors.app.{name}", {key: value.get(key, "") for key in ("app_id", "session_id")}
    text = json.dumps(value.get("properties", {}), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if kind == "event":
        return "users.behaviors.CustomEvent", {"name": value["name"], "properties": text}
    price = struct.unpack("f", struct.pack("f", value["price"]))[0]  # the schema says float: 32 bits
    fields = {"product_id": value["product_id"], "currency": value["currency"], "price": price, "properties": text}
    return "users.behaviors.Purchase", fields


def expected_rows(lines: Iterable[bytes], app: str, partitions: int, workspace: Workspace) -> Model:
    """The model after all lines; its `rows` are complete."""
    model = Model(app, partitions, workspace)
    for line in lines:
        model.send(line)
    model.finish()
    return model
