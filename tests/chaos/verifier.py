"""The verifier holds what came out, as sets, to the model, and imports nothing of the product."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastavro import reader

from tests.chaos import devices
from tests.chaos.tracked import Mail, read_mail
from tests.chaos.verify_casts import hold_casts
from tests.chaos.verify_reports import hold_reports
from tests.chaos.workload import ACTIVE_AT, BODY, NAMES, Item, Workload

SHOWN_MAX = 4


@dataclass
class Found:
    """What the outside saw, and what the product says of itself.

    `calls` are (seconds, idempotency key, body) and `mails` whole messages.
    """

    calls: list[tuple[float, str, bytes]]
    mails: list[bytes]
    exports: Path
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    dispatches: list[dict[str, Any]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)
    topics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Values of the output topics, by name, as another client read them; of Kafka alone."""
    reports: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """What the product tells of each campaign, by its name and `hour` or `day`."""
    series: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The data series of the REST API, by campaign; nothing where there was no door."""


@dataclass
class Verdict:
    """Faults in words, and counts of what was lost, doubled and held."""

    lost: int = 0
    doubled: int = 0
    held: int = 0
    faults: list[str] = field(default_factory=list)

    def compare(self, what: str, found: Counter[Any], wanted: Counter[Any]) -> None:
        """Hold a multiset to the model."""
        missing, extra = wanted - found, found - wanted
        self.lost += missing.total()
        self.doubled += extra.total()
        for word, items in (("lost", missing), ("too many", extra)):
            if items:
                self.faults.append(f"{what}: {items.total()} {word}, such as {list(items)[:SHOWN_MAX]}")

    def fault(self, text: str) -> None:
        """Something else is wrong."""
        self.faults.append(text)


def verify(work: Workload, found: Found) -> Verdict:
    """Everything that is promised of a run that has come to rest."""
    verdict = Verdict()
    rows = export_rows(found.exports)
    mails = [read_mail(content) for content in found.mails]
    _calls(work, found, verdict)
    _mails(work, mails, found, verdict)
    bumps = _exports(work, rows, verdict)
    _engagements(work, rows, verdict)
    counts = _state(work, found, bumps, verdict)
    hold_casts(work, found, mails, rows, verdict)
    hold_reports(found, verdict)
    if found.topics:
        ids = Counter(row["id"] for row in rows)
        verdict.compare("currents topic", Counter(value["id"] for value in found.topics["currents"]), ids)
        _changes(work, counts, found.topics["segment-changes"], verdict)
    if found.totals["dead_letters"]:
        verdict.fault(f"{found.totals['dead_letters']} dead letters, and nothing sent was bad")
    return verdict


def _calls(work: Workload, found: Found, verdict: Verdict) -> None:
    """Each id stands for one item, with equal bytes on every resend, and none is early."""
    bodies: defaultdict[str, set[bytes]] = defaultdict(set)
    for _, key, body in found.calls:
        bodies[key].add(body)
    changed = sorted(key for key, each in bodies.items() if len(each) > 1)
    if changed:
        verdict.doubled += len(changed)
        verdict.fault(f"webhooks: {len(changed)} resends with other bytes, such as {changed[:SHOWN_MAX]}")
    items = work.persons(min(each).decode() for each in bodies.values())
    verdict.compare("webhooks", items, work.wanted("go") + work.wanted("later"))
    early = [
        (user, name, n)
        for seconds, _, body in found.calls
        for user, name, n in BODY.findall(body.decode())
        if seconds < work.due_s.get(int(n), 0)
    ]
    if early:
        verdict.fault(f"timers: {len(early)} early, such as {early[:SHOWN_MAX]}")


def _mails(work: Workload, mails: list[Mail], found: Found, verdict: Verdict) -> None:
    """At most once each; sent by our account ⊆ accepted by the server ⊆ sent or held by our account."""
    accepted = Counter(mail.dispatch_id for mail in mails)
    items = work.persons(mail.page for mail in mails)
    twice = {key: count for counts in (items, accepted) for key, count in counts.items() if count > 1}
    verdict.doubled += len(twice)
    if twice:
        verdict.fault(f"mails: {len(twice)} accepted twice, such as {list(twice)[:SHOWN_MAX]}")
    ours = [each for each in found.dispatches if each["channel"] == "email"]
    sent, held = ({each["dispatch_id"] for each in ours if each["state"] == state} for state in ("sent", "held"))
    verdict.held = len(held)
    verdict.lost += len(sent - set(accepted))
    if sent - set(accepted):
        verdict.fault(f"mails: {len(sent - set(accepted))} told as sent, and never accepted")
    if set(accepted) - sent - held:
        verdict.fault(f"mails: {len(set(accepted) - sent - held)} accepted, and neither sent nor held by our account")
    wanted = work.wanted("mail")
    decided = {each["dispatch_id"] for each in ours if each["campaign"] == "mail"} & (sent | held)
    if len(decided) != wanted.total() or items - wanted:
        verdict.lost += max(0, wanted.total() - len(decided))
        verdict.fault(f"mails: {wanted.total()} wanted, {len(decided)} sent or held; unknown {items - wanted}")


def export_rows(folder: Path) -> list[dict[str, Any]]:
    """Every row of every file, with its event type."""
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("event_type=*/date=*/*.avro")):
        event_type = path.parts[-3].removeprefix("event_type=")
        with path.open("rb") as file:
            found: list[dict[str, Any]] = list(reader(file))  # type: ignore[arg-type]
        rows += [{"event_type": event_type, **row} for row in found]
    return rows


def _exports(work: Workload, rows: list[dict[str, Any]], verdict: Verdict) -> Counter[Item]:
    """Each id in one file, each event in one row; returns the bumps, of which some were taken unknown to us."""
    ids = Counter(row["id"] for row in rows)
    verdict.compare("export ids", ids, Counter(set(ids)))
    events = Counter(
        (work.person(_owner(row)), row["name"], int(json.loads(row["properties"])["n"]))
        for row in rows
        if row["event_type"] == "users.behaviors.CustomEvent"
    )
    bumps = Counter({item: count for item, count in events.items() if item[1] == "bump"})
    known = work.wanted("bump")
    verdict.compare(
        "exported events", events, known + Counter((bumps.keys() - known.keys()) & work.doubtful) + _named(work)
    )
    sends = Counter(
        row["dispatch_id"]
        for row in rows
        if row["event_type"].endswith("webhook.Send") and row["campaign_name"] in ("go", "later")
    )
    total = (work.wanted("go") + work.wanted("later")).total()
    verdict.doubled += sum(sends.values()) - len(sends)
    if len(sends) != total or sum(sends.values()) != total:
        verdict.lost += max(0, total - len(sends))
        verdict.fault(f"exported webhook sends: {sum(sends.values())} of {len(sends)} ids, {total} wanted")
    return bumps


def _owner(row: dict[str, Any]) -> str:
    """The key of the user whom a behaviour is of: known, or a device's."""
    return str(row["external_user_id"] or devices.PREFIX + row["device_id"])


def _engagements(work: Workload, rows: list[dict[str, Any]], verdict: Verdict) -> None:
    """Each open and click that a reader made is one row, of the dispatch whose mail it was."""
    opens = Counter(
        ("open", row["machine_open"] == "true", row["dispatch_id"])
        for row in rows
        if row["event_type"].endswith("email.Open")
    )
    clicks = Counter(
        ("click", bool(row["is_suspected_bot_click"]), row["dispatch_id"])
        for row in rows
        if row["event_type"].endswith("email.Click")
    )
    verdict.compare("exported engagements", opens + clicks, work.readers.wanted())


def _named(work: Workload) -> Counter[Item]:
    return sum((work.wanted(name) for name in NAMES if name != "bump"), Counter())


def _changes(work: Workload, counts: Counter[tuple[str, str]], changes: list[dict[str, Any]], verdict: Verdict) -> None:
    """Of each user and segment: enter, leave, enter …, up to the membership that the model has; `active` once.

    A device's user may leave, once it is known whose the device is.
    """
    seen: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for change in changes:
        seen[change["external_id"], change["segment"]].append(change["change"])
    for user in work.rows:
        for segment, threshold in (("active", ACTIVE_AT), ("extra", work.extra_at)):
            is_member = counts[user, "bump"] >= threshold
            have = seen[user, segment]
            want = ["enter", "leave"] * (len(have) // 2 + 1)
            want = want[: len(have)]
            is_once = segment != "active" or len(have) == is_member or user in work.devices.owners
            if have != want or (len(have) % 2 == 1) != is_member or not is_once:
                verdict.fault(f"segment-changes: {user} {segment}: {have}, {is_member=}")


def _state(work: Workload, found: Found, bumps: Counter[Item], verdict: Verdict) -> Counter[tuple[str, str]]:
    """Counts, attributes and memberships equal the model's fold; returns its counts of each user and event.

    What a device did is in its owner's row, once and with all else, and in its own no more.
    """
    counts = Counter((user, name) for user, name, _ in (_named(work) + bumps).elements())
    for user in work.rows:
        row = found.users.get(user)
        if row is None:
            verdict.lost += 1
            verdict.fault(f"{user}: no row")
            continue
        have = {name: row["events"].get(name, {"count": 0})["count"] for name in NAMES}
        want = {name: counts[user, name] for name in NAMES}
        for name in NAMES:
            verdict.lost += max(0, want[name] - have[name])
            verdict.doubled += max(0, have[name] - want[name])
        if have != want:
            verdict.fault(f"{user}: counts are {have}, not {want}")
        if row["attributes"].get("level", 0) != work.level.get(user, 0):
            verdict.fault(f"{user}: level is {row['attributes'].get('level')}, not {work.level.get(user, 0)}")
        if row.get("merged_into") != work.devices.owners.get(user):
            verdict.fault(f"{user}: merged into {row.get('merged_into')}, not {work.devices.owners.get(user)}")
        for segment, threshold in (("active", ACTIVE_AT), ("extra", work.extra_at)):
            if (segment in row["segments"]) != (want["bump"] >= threshold):
                verdict.fault(f"{user}: {want['bump']} bumps, and segments {list(row['segments'])}, {threshold=}")
    return counts
