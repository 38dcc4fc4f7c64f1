"""Brute force over CDNOW: what the demo's last line must say, computed without anything of Headrace.

It is written to be trusted by reading, not to be fast. Per user there is a list of purchases and a sorted
list of the instants at which anything can change (each purchase, and each purchase plus each window). At
every instant every segment is decided from scratch from the full list of purchases so far: first by time
alone, then again after each purchase of that instant. Times are whole seconds since 1970, money is Decimal.

`python -m tests.oracle.cdnow [WORKSPACE]`, from the root of the checkout, prints the line.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
COLUMNS = ["customer_id", "date", "number_of_cds", "dollar_value"]


class UnsupportedError(Exception):
    """The workspace or the file holds something that this oracle does not know how to decide."""


# -- the file ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Purchase:
    """One line of the file: who, when (midnight UTC, in seconds) and for how much."""

    customer: str
    at: int
    price: Decimal


def cdnow_path() -> Path:
    """Find CDNOW_master.txt inside the installed package `lifetimes`, without importing it."""
    spec = importlib.util.find_spec("lifetimes")
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedError("the package lifetimes is not installed (pip install --no-deps lifetimes)")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "CDNOW_master.txt"


def read_rows(path: Path) -> list[list[str]]:
    """Return the four columns of every line below the header, in file order."""
    header, *rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    if header != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise UnsupportedError(f"{path.name}: expected the columns {COLUMNS}")
    return rows


def midnight(date: str) -> int:
    """Return the second at which the day YYYYMMDD begins in UTC."""
    return int(datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC).timestamp())


def read_purchases(path: Path) -> list[Purchase]:
    """Return every line of the file as a purchase, in file order."""
    return [Purchase(who, midnight(date), Decimal(value)) for who, date, _, value in read_rows(path)]


# -- the workspace -------------------------------------------------------------------------------------

Holds = Callable[[list[Purchase], int], bool]
"""Whether a segment holds for a user with these purchases at this time."""


@dataclass(frozen=True)
class Campaign:
    """What starts a campaign, how long it waits, and when the same user may enter again (None: never)."""

    name: str
    trigger: str
    """`purchase`, or `entered ` and the name of a segment."""
    delay: int
    re_eligible_after: int | None


@dataclass(frozen=True)
class Workspace:
    """The definitions, and every length of a window that occurs in them."""

    segments: dict[str, Holds]
    campaigns: list[Campaign]
    windows: list[int]


def check_keys(where: str, body: object, required: set[str], optional: set[str]) -> dict[str, Any]:
    """Return the mapping if it has all required keys and no unknown one."""
    if not isinstance(body, dict) or not required <= set(body) <= required | optional:
        raise UnsupportedError(f"{where}: needs {sorted(required)}, may have {sorted(optional)}, got {body!r}")
    return body


def seconds(where: str, text: object) -> int:
    """Read a duration such as `90d`, `12h`, `30m` or `1s`."""
    match = re.fullmatch(r"([0-9]+)([dhms])", text) if isinstance(text, str) else None
    if match is None:
        raise UnsupportedError(f"{where}: not a duration: {text!r}")
    return int(match[1]) * SECONDS[match[2]]


def number(where: str, value: object) -> Decimal:
    """Read a number of YAML as the decimal that was written."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedError(f"{where}: not a number: {value!r}")
    return Decimal(str(value))


def read_window(where: str, body: dict[str, Any], windows: list[int]) -> int | None:
    """Read an optional `within` and note its length."""
    if "within" not in body:
        return None
    window = seconds(where, body["within"])
    windows.append(window)
    return window


def inside(past: list[Purchase], window: int | None, now: int) -> list[Purchase]:
    """Return the purchases in the window (now - window, now]; all of them without a window."""
    return [p for p in past if window is None or now - window < p.at <= now]


def read_filter(where: str, tree: object, windows: list[int]) -> Holds:
    """Turn a filter tree into a question about a list of purchases and a time."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise UnsupportedError(f"{where}: a filter is a mapping with one key, not {tree!r}")
    [(kind, body)] = tree.items()
    if kind == "all" and isinstance(body, list):
        parts = [read_filter(where, part, windows) for part in body]
        return lambda past, now: all(part(past, now) for part in parts)
    if kind == "not":
        part = read_filter(where, body, windows)
        return lambda past, now: not part(past, now)
    if kind == "purchases":
        check_keys(where, body, {"at_least"}, {"within"})
        least, window = number(where, body["at_least"]), read_window(where, body, windows)
        return lambda past, now: len(inside(past, window, now)) >= least
    if kind == "money_spent":
        check_keys(where, body, {"over"}, {"within"})
        limit, window = number(where, body["over"]), read_window(where, body, windows)
        return lambda past, now: sum((p.price for p in inside(past, window, now)), Decimal(0)) > limit
    raise UnsupportedError(f"{where}: the oracle does not know the filter {kind!r}")


def read_segment(where: str, document: object, windows: list[int]) -> tuple[str, Holds]:
    """Read a segment and make sure that it does not hold for a user without purchases."""
    body = check_keys(where, document, {"name", "filter"}, set())
    holds = read_filter(where, body["filter"], windows)
    if holds([], 0):
        raise UnsupportedError(
            f"{where}: holds for a user without purchases, whose time of entry the oracle cannot know"
        )
    return body["name"], holds


def read_trigger(where: str, trigger: object, segments: dict[str, Holds]) -> str:
    """Read a trigger: any purchase, or the entry into a segment that exists."""
    if trigger == {"purchase": {}}:
        return "purchase"
    name = check_keys(where, trigger, {"segment_entered"}, set())["segment_entered"]
    if name not in segments:
        raise UnsupportedError(f"{where}: no such segment: {name!r}")
    return f"entered {name}"


def read_campaign(where: str, document: object, segments: dict[str, Holds]) -> Campaign:
    """Read a campaign; its channel must be one whose sends are exported."""
    required, optional = {"name", "trigger", "channel", "message"}, {"delay", "re_eligible_after"}
    body = check_keys(where, document, required, optional)
    if body["channel"] not in {"email", "webhook"}:
        raise UnsupportedError(f"{where}: the oracle does not know the channel {body['channel']!r}")
    again = body.get("re_eligible_after")
    return Campaign(
        name=body["name"],
        trigger=read_trigger(where, body["trigger"], segments),
        delay=seconds(where, body.get("delay", "0s")),
        re_eligible_after=None if again is None else seconds(where, again),
    )


def read_workspace(folder: Path) -> Workspace:
    """Read `segments/*.yaml` and `campaigns/*.yaml`; any other YAML file in the folder is an error."""
    documents = {
        p.relative_to(folder).as_posix(): yaml.safe_load(p.read_text("utf-8")) for p in sorted(folder.rglob("*.y*ml"))
    }
    windows: list[int] = []
    segments: dict[str, Holds] = {}
    campaigns: dict[str, Campaign] = {}
    for where in [w for w in documents if re.fullmatch(r"segments/[^/]+\.yaml", w)]:
        name, holds = read_segment(where, documents[where], windows)
        segments[name] = holds
    for where in [w for w in documents if re.fullmatch(r"campaigns/[^/]+\.yaml", w)]:
        campaign = read_campaign(where, documents[where], segments)
        campaigns[campaign.name] = campaign
    if not documents or len(segments) + len(campaigns) != len(documents):
        raise UnsupportedError(f"{folder.name}: empty, a name used twice, or an unknown kind among {sorted(documents)}")
    return Workspace(segments, list(campaigns.values()), windows)


# -- one user ------------------------------------------------------------------------------------------


@dataclass
class User:
    """What has happened to one user so far."""

    past: list[Purchase] = field(default_factory=list)
    member: dict[str, bool] = field(default_factory=dict)
    """Segment -> whether the user is in it; absent means not yet."""
    entered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    entries: dict[str, list[int]] = field(default_factory=dict)
    """Campaign -> the times at which the user entered it."""


def trigger(workspace: Workspace, user: User, what: str, now: int) -> None:
    """Let the user enter every campaign that waits for this and may be entered (again) now."""
    for campaign in workspace.campaigns:
        entries = user.entries.setdefault(campaign.name, [])
        again = campaign.re_eligible_after
        eligible = not entries or (again is not None and now - entries[-1] >= again)
        if campaign.trigger == what and eligible:
            entries.append(now)


def decide_segments(workspace: Workspace, user: User, now: int) -> None:
    """Recompute every membership from scratch, count what changed, and trigger what waits for an entry."""
    for name, holds in workspace.segments.items():
        was, is_now = user.member.get(name, False), holds(user.past, now)
        user.member[name] = is_now
        if is_now and not was:
            user.entered[name] += 1
            trigger(workspace, user, f"entered {name}", now)
        if was and not is_now:
            user.left[name] += 1


def check_nothing_moved(workspace: Workspace, user: User, now: int) -> None:
    """Make sure that up to this second, just before the next instant, no membership changed unnoticed."""
    for name, holds in workspace.segments.items():
        if holds(user.past, now) != user.member.get(name, False):
            raise AssertionError(f"the list of instants is incomplete: {name} changed at or before {now}")


def live(workspace: Workspace, purchases: list[Purchase], end: int) -> User:
    """Walk through one user's instants up to and including the end, the time of the closing tick."""
    boundaries = {p.at + window for p in purchases for window in [0, *workspace.windows]}
    user = User()
    for instant in sorted(b for b in boundaries if b <= end):
        check_nothing_moved(workspace, user, instant - 1)
        decide_segments(workspace, user, instant)  # what is due by time alone comes before the purchases
        for purchase in [p for p in purchases if p.at == instant]:  # ties keep the order of the file
            user.past.append(purchase)
            decide_segments(workspace, user, instant)
            trigger(workspace, user, "purchase", instant)
    check_nothing_moved(workspace, user, end)
    return user


# -- everyone ------------------------------------------------------------------------------------------


def summarize(workspace: Workspace, purchases: list[Purchase]) -> dict[str, Any]:
    """Replay every user by itself and add up the line that the demo must print."""
    end = max(p.at for p in purchases)
    by_customer: dict[str, list[Purchase]] = {}
    for purchase in purchases:
        by_customer.setdefault(purchase.customer, []).append(purchase)
    users = [live(workspace, mine, end) for mine in by_customer.values()]
    segments = {
        name: {
            "entered": sum(user.entered[name] for user in users),
            "left": sum(user.left[name] for user in users),
            "now": sum(user.member[name] for user in users),
        }
        for name in workspace.segments
    }
    sends = {
        campaign.name: sum(at + campaign.delay <= end for user in users for at in user.entries[campaign.name])
        for campaign in workspace.campaigns
    }
    return {
        "events": len(purchases),
        "users": len(users),
        "revenue": round(float(sum((p.price for p in purchases), Decimal(0))), 2),
        "segments": segments,
        "sends": sends,
        "delivered": sum(sends.values()),
        "held": 0,
        "aborted": 0,
        "failed": 0,
        "dead_letters": 0,
        "export": {"rows": len(purchases) + sum(sends.values())},
    }


def expected(workspace_dir: Path) -> dict[str, Any]:
    """Return the demo's last line for this workspace, without `seconds`, `events_per_s`, `export.files`."""
    return summarize(read_workspace(workspace_dir), read_purchases(cdnow_path()))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(expected(Path(sys.argv[1] if len(sys.argv) > 1 else "config/demo"))) + "\n")
