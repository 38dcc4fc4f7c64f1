"""Devices: what somebody does before anybody knows who it is, whom it turns out to be, and what comes late."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

PREFIX: Final = "device:"
ALIVE_MAX: Final = 3
BEFORE: Final = (2, 8)
"""Events of a device before it is identified."""

LATE: Final = (0, 4)
"""Events that come for it afterwards, all the same."""

STAYS_UNKNOWN: Final = 0.15
TWICE: Final = 0.2
"""How often a device is told again whose it is."""


@dataclass
class Device:
    """One device, and what it still has to do."""

    name: str
    owner: str
    before: int
    late: int
    is_known: bool = False

    @property
    def key(self) -> str:
        """Of its user, for as long as that is nobody."""
        return PREFIX + self.name


@dataclass
class Devices:
    """All devices so far. `owners`: whom they were said to be, by the key of the anonymous user."""

    dice: random.Random
    owners: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    alive: list[Device] = field(default_factory=list)

    def person(self, key: str) -> str:
        """Whose what happened to a user is in the end."""
        return self.owners.get(key, key)

    def born(self, users: list[str], number: int) -> list[dict[str, Any]]:
        """A new device, which tells a name and an address first; nothing where there are enough."""
        if len(self.alive) >= ALIVE_MAX:
            return []
        dice, name = self.dice, f"d{number}"
        owner = "" if dice.random() < STAYS_UNKNOWN else dice.choice(users)
        self.alive.append(Device(name, owner, dice.randint(*BEFORE), dice.randint(*LATE)))
        self.seen.append(PREFIX + name)
        known = {"email": f"{name}@example.com", "first_name": PREFIX + name}  # by which messages name it
        return [{"type": "attributes", "device_id": name, **known, "id": f"a-{name}"}]

    def next(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """What one of them does: that event, or saying who it is; None where there is none."""
        if not self.alive:
            return None
        device = self.dice.choice(self.alive)
        if device.before > 0:
            device.before -= 1
        elif not device.is_known and device.owner:
            return self._identified(device)
        elif device.is_known and device.late > 0:
            device.late -= 1
            if self.dice.random() < TWICE:
                return self._identified(device)
        else:
            self.alive.remove(device)
            return None
        return {**event, "device_id": device.name}

    def _identified(self, device: Device) -> dict[str, Any]:
        device.is_known = True
        self.owners[device.key] = device.owner
        return {"type": "identify", "device_id": device.name, "external_id": device.owner}


def key_of(event: dict[str, Any]) -> str:
    """The key of what is about a device's user or a known one."""
    if "device_id" in event:
        return f"{PREFIX}{event['device_id']}"
    return str(event["external_id"])


def may_repeat(event: dict[str, Any]) -> bool:
    """Whether offering it again does no harm: it has an id, or says what holds already."""
    return "id" in event or event["type"] == "identify"
