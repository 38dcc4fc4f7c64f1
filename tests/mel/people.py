"""Who moves to the platform: the tables that the old one exported, made anew from a seed for each run."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from streams.times import DAY_MS, format_time

OTHERS = 300
LIKERS_SHARE = 0.3
UNSUBSCRIBED_SHARE = 0.1
DAYS_OF_HISTORY = 10
HOUR_MS = 3_600_000
TOPIC = "jazz"
LIKES_WANTED = 2
ZONES = ("Europe/Lisbon", "Europe/Berlin", "Europe/Helsinki", "America/New_York")
NAMES = (
    "Ada",
    "Ben",
    "Cleo",
    "Dario",
    "Edda",
    "Femi",
    "Gwen",
    "Hugo",
    "Inga",
    "Jon",
    "Kira",
    "Liam",
    "Maya",
    "Noor",
    "Olga",
    "Paul",
    "Quin",
    "Rosa",
    "Sven",
    "Tara",
)


class Person(NamedTuple):
    """One row of the old platform's table; `usual_hour` is the hour of the day, UTC, at which the person comes."""

    external_id: str
    first_name: str
    preferred_name: str
    time_zone: str
    email_subscribe: str
    likes: int
    usual_hour: int

    @property
    def email(self) -> str:
        """The address."""
        return f"{self.external_id}@example.com"

    @property
    def called(self) -> str:
        """How the announcement is to greet them."""
        return self.preferred_name or self.first_name or "there"

    @property
    def is_written_to(self) -> bool:
        """Whether the announcement is for them; Mel gets there by what she likes in the shop."""
        return (self.likes >= LIKES_WANTED or self.external_id == "mel") and self.email_subscribe != "unsubscribed"


MEL = Person("mel", "Melanie", "Mel", "Europe/Lisbon", "opted_in", 0, 21)
SAM = Person("sam", "Samuel", "", "Europe/Berlin", "subscribed", 2, 19)
NOBODY = Person("guest", "", "", "Europe/Lisbon", "subscribed", 3, 20)
UMA = Person("uma", "Uma", "", "Europe/Berlin", "unsubscribed", 4, 19)
HOURS = (19, 20, 21)


def everybody(seed: int) -> list[Person]:
    """Those with a name of their own in the story, and a few hundred others."""
    dice = random.Random(seed)
    return [MEL, SAM, NOBODY, UMA, *(_other(dice, number) for number in range(OTHERS))]


def _other(dice: random.Random, number: int) -> Person:
    likes = dice.randint(LIKES_WANTED, 5) if dice.random() < LIKERS_SHARE else dice.randint(0, 1)
    state = "unsubscribed" if dice.random() < UNSUBSCRIBED_SHARE else dice.choice(("subscribed", "opted_in"))
    preferred = dice.choice(NAMES)[:3] if dice.random() < 0.4 else ""
    return Person(
        f"reader-{number:03}", dice.choice(NAMES), preferred, dice.choice(ZONES), state, likes, dice.choice(HOURS)
    )


def write_people(path: Path, people: Iterable[Person]) -> Path:
    """Who they are: `people.csv`, for `import`."""
    columns = ("external_id", "first_name", "preferred_name", "time_zone", "email", "email_subscribe")
    return _write(path, columns, [[str(getattr(one, name)) for name in columns] for one in people])


def write_likes(path: Path, people: Iterable[Person], now_ms: int) -> Path:
    """What they liked: `likes.csv`, for `import --as events`."""
    rows = [
        [one.external_id, "article_liked", format_time(now_ms - (number + 1) * DAY_MS), TOPIC, f"old-{number}"]
        for one in people
        for number in range(one.likes)
    ]
    return _write(path, ("external_id", "name", "time", "topic", "article"), rows)


def write_sessions(path: Path, people: Iterable[Person], now_ms: int) -> Path:
    """When they came: `sessions.ndjson`, for `send`; one session a day, within their usual hour."""
    midnight_ms = now_ms - now_ms % DAY_MS
    lines = [
        json.dumps(_session(one, midnight_ms - day * DAY_MS + one.usual_hour * HOUR_MS + day * 60_000)) + "\n"
        for one in people
        for day in range(1, DAYS_OF_HISTORY + 1)
    ]
    path.write_text("".join(lines), "utf-8")
    return path


def _session(one: Person, time_ms: int) -> dict[str, Any]:
    moment = format_time(time_ms)
    return {"type": "session_start", "external_id": one.external_id, "app_id": "old-shop", "time": moment}


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path
