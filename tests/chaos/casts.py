"""Scheduled campaigns of a session: each comes round once, for those who had joined by then, with variants and control.

What the harness knows of one is in terms of its own clock: `sure` once both partitions are seen to know of it before
its moment, and `must` are those whose joining was seen to be applied by then. Whoever was offered to join only after
its moment `may` not be in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

PREFIX: Final = "cast"
CONTROL: Final = 20
VARIANTS: Final = {"a": 45, "b": 35}
RATE: Final = 40
"""Messages in any second, of every other two: such a fan-out takes many steps."""

PLAN: Final = "gold"
JOINED: Final = {"name": "join", "at_least": 1}
SKEW_S: Final = 9.0
"""What partitions may be off by, around a life whose clock is set back and forth."""


@dataclass
class Cast:
    """One scheduled campaign."""

    number: int
    at_s: float
    is_sure: bool = False
    has_failed: bool = False
    sure_s: float = 0.0
    must: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Its id."""
        return f"{PREFIX}{self.number}"

    @property
    def channel(self) -> str:
        """By turns."""
        return ("webhook", "email")[self.number % 2]

    def document(self) -> dict[str, Any]:
        """Its definition."""
        at = datetime.fromtimestamp(self.at_s, UTC).isoformat(timespec="milliseconds")
        return {
            "name": self.name,
            "schedule": {"at": at, **({"rate": {"per_second": RATE}} if self.number % 4 in (1, 2) else {})},
            "audience": {
                "all": [{"attribute": {"path": "plan", "is": PLAN}}, {"event": {"name": "join", "at_least": 1}}]
            },
            "channel": self.channel,
            "re_eligible_after": "0s",  # so that nothing but the fan-out's own memory keeps a user from two messages
            "control": CONTROL,
            "variants": [
                {"name": name, "percent": percent, "message": message(self.channel, f"{self.name} {name}")}
                for name, percent in VARIANTS.items()
            ],
            "conversions": [{"name": "bought", "event": {"name": "buy"}, "within": "1h"}],
        }


def message(channel: str, words: str) -> dict[str, str]:
    """A message that says its user and these words; in a mail there is a link, too."""
    text = "{{ ${user_id} | default: ${first_name} }} " + words + " "
    if channel == "webhook":
        return {"body": text}
    page = f'<html><body><p>{text}</p><a href="https://shop.example/{words.partition(" ")[0]}">Look</a></body></html>'
    return {"to": "{{ ${email_address} }}", "subject": "Hi", "html": page}


@dataclass
class Casts:
    """Every scheduled campaign of a session so far, and when the clock of the product was not ours."""

    all: list[Cast] = field(default_factory=list)
    skewed: list[tuple[float, float]] = field(default_factory=list)

    def announce(self, at_s: float) -> Cast:
        """Another one."""
        self.all.append(Cast(len(self.all) + 1, at_s))
        return self.all[-1]

    def fail(self, cast: Cast) -> None:
        """It is not known whether the product ever heard of it: it is taken out of the definitions again."""
        cast.has_failed, cast.is_sure = True, False

    def doubt_after(self, seconds: float) -> None:
        """What the product heard after that time it may have forgotten."""
        for cast in self.all:
            if cast.is_sure and cast.sure_s >= seconds:
                cast.is_sure = False

    @property
    def defined(self) -> dict[str, dict[str, Any]]:
        """The definitions, as files."""
        return {f"campaigns/{each.name}.yaml": each.document() for each in self.all if not each.has_failed}

    @property
    def last_s(self) -> float:
        """The moment of the last; 0.0 without one."""
        return max((each.at_s for each in self.all if not each.has_failed), default=0.0)

    def skew_s(self, cast: Cast) -> float:
        """How far off the product's clock may have been about a moment."""
        near = any(since - SKEW_S <= cast.at_s <= until + SKEW_S for since, until in self.skewed)
        return SKEW_S if near else 0.0
