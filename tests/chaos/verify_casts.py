"""Holds scheduled campaigns to the model: each member one entry and one message, or none as control; conversions."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.casts import CONTROL, VARIANTS, Cast
from tests.chaos.tracked import Mail
from tests.chaos.workload import Workload

if TYPE_CHECKING:
    from tests.chaos.verifier import Found, Verdict  # which calls this

Row = dict[str, Any]
_WORDS: Final = re.compile(r"(\w+) (cast\d+) (\w+) ")
SHOWN_MAX: Final = 4
CHANCE_ENTRIES_MIN: Final = 300
CHANCE_SHARE_MAX: Final = 15
"""Percent by which a share may be off its own among so many entries; seven times what chance makes of it."""

CONTROL_NAME: Final = "control"


def hold_casts(work: Workload, found: Found, mails: list[Mail], rows: list[Row], verdict: Verdict) -> None:
    """Everything that came of the scheduled campaigns of a session that is at rest."""
    shares: Counter[str] = Counter()
    for cast in work.casts.all:
        entries = _entries(cast, found, mails, rows, verdict)
        _members(work, cast, entries, verdict)
        _profiles(work, cast, entries, found, verdict)
        _conversions(work, cast, rows, verdict)
        shares.update(entries.values())
    _shares(shares, verdict)


def _entries(cast: Cast, found: Found, mails: list[Mail], rows: list[Row], verdict: Verdict) -> dict[str, str]:
    """The variant, or `control`, of each who entered; whoever entered twice is a fault."""
    of_cast = [row for row in rows if row.get("campaign_name") == cast.name]
    enrolled = [row["external_user_id"] for row in of_cast if row["event_type"].endswith("EnrollInControl")]
    dispatches = {each["dispatch_id"]: each for each in found.dispatches if each["campaign"] == cast.name}
    users = Counter([*enrolled, *(each["user"] for each in dispatches.values())])
    verdict.compare(f"{cast.name}: entries", users, Counter(set(users)))
    states = {each["state"] for each in dispatches.values()}
    strange = states - {"sent", *(("held",) if cast.channel == "email" else ())}
    if strange and not cast.has_failed:
        verdict.fault(f"{cast.name}: there are dispatches that are {sorted(strange)}")
    said = _said(cast, found, mails)
    told = [row for row in of_cast if row["event_type"].endswith(".Send")]
    sent = {name for name, each in dispatches.items() if each["state"] == "sent"}
    verdict.compare(f"{cast.name}: exported sends", Counter(row["dispatch_id"] for row in told), Counter(sent))
    verdict.compare(f"{cast.name}: messages", Counter(sent & said.keys()), Counter(sent))
    for row in told:
        user, variant = said.get(row["dispatch_id"], ("", ""))
        if user and (user, variant) != (row["external_user_id"], row["message_variation_name"]):
            verdict.fault(f"{cast.name}: {user} got {variant}, and the export says {row['message_variation_name']}")
    variants = {row["external_user_id"]: str(row["message_variation_name"]) for row in told}
    variants |= dict(said.values())
    return {**dict.fromkeys(users, ""), **variants, **dict.fromkeys(enrolled, CONTROL_NAME)}


def _said(cast: Cast, found: Found, mails: list[Mail]) -> dict[str, tuple[str, str]]:
    """The user and the variant of each message that arrived, by its dispatch."""
    texts = [(key, body.decode()) for _, key, body in found.calls] + [(mail.dispatch_id, mail.page) for mail in mails]
    return {
        key: (user, variant) for key, text in texts for user, name, variant in _WORDS.findall(text) if name == cast.name
    }


def _members(work: Workload, cast: Cast, entries: dict[str, str], verdict: Verdict) -> None:
    """All who were in it for certain, and nobody who was not."""
    if cast.is_sure and not work.casts.skew_s(cast):
        lost = cast.must - entries.keys()
        verdict.lost += len(lost)
        if lost:
            shown = sorted(lost)[:SHOWN_MAX]
            verdict.fault(f"{cast.name}: {len(lost)} of {len(cast.must)} had no entry, such as {shown}")
    strangers = entries.keys() - work.may_join_by(cast.at_s + work.casts.skew_s(cast))
    if strangers:
        shown = sorted(strangers)[:SHOWN_MAX]
        verdict.fault(f"{cast.name}: {len(strangers)} entered who had not joined, such as {shown}")


def _profiles(work: Workload, cast: Cast, entries: dict[str, str], found: Found, verdict: Verdict) -> None:
    """Rows know of these entries, each of one."""
    known = {
        user: row["campaigns"][cast.name]["entries"]
        for user, row in found.users.items()
        if cast.name in row["campaigns"]
    }
    verdict.compare(f"{cast.name}: entries in profiles", Counter(known), Counter(dict.fromkeys(entries, 1)))


def _conversions(work: Workload, cast: Cast, rows: list[Row], verdict: Verdict) -> None:
    """One for each who bought after the message for certain, none for those who did not, never two."""
    of_cast = [row for row in rows if row.get("campaign_name") == cast.name]
    converted = Counter(row["external_user_id"] for row in of_cast if row["event_type"].endswith("Conversion"))
    verdict.compare(f"{cast.name}: conversions", converted, Counter(set(converted)))
    decided = {
        row["external_user_id"]: row["time"]
        for row in of_cast
        if row["event_type"].endswith((".Send", "EnrollInControl"))
    }
    skew_s = 2 * work.casts.skew_s(cast)
    for user, seconds in decided.items():
        bought = [n for by, name, n in work.taken if name == "buy" and by == user]
        must = not cast.has_failed and any(work.offered_s[n] > seconds + 1 + skew_s for n in bought)
        may = any(work.acked_s[n] >= cast.at_s - skew_s for n in bought)
        if (must and not converted[user]) or (converted[user] and not may):
            verdict.lost += must
            verdict.fault(f"{cast.name}: {user} converted {converted[user]} times, {must=}, {may=}")


def _shares(shares: Counter[str], verdict: Verdict) -> None:
    """Variants and control have about the shares that they should have."""
    total = shares.total() - shares[""]
    if total < CHANCE_ENTRIES_MIN:
        return
    for name, percent in (*VARIANTS.items(), (CONTROL_NAME, CONTROL)):
        if abs(100 * shares[name] / total - percent) > CHANCE_SHARE_MAX:
            verdict.fault(f"casts: {shares[name]} of {total} entries are {name}, which should have {percent} percent")
