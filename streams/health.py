"""How it goes, in words: which component, in what state, since when and why, from facts that somebody gathered."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from streams.lag_status import STATUSES, Status, worst

HANG_S: Final = 5.0
"""An attempt that waits so long for its provider is named, long before it is given up."""

LATE_S: Final = 5.0
CANARY_S: Final = 10.0
"""A canary that has been under way for so long has met something that stands still."""

FAILING_RATIO: Final = 0.1
DEAD_LETTER_RATIO: Final = 0.01
BLOCKED_S: Final = 1.0
"""An event loop that has not turned for so long is blocked."""

_AGENTS: Final = {
    "intake": "Intake",
    "users": "Segments and campaigns",
    "delivery": "Delivery",
    "export": "Exports",
    "reports": "Reports",
}


class Worker(msgspec.Struct, frozen=True):
    """A process: `up`, `starting`, `ended`, `silent` (it runs and does not answer) or `cut off` from the log."""

    name: str
    state: str
    since_ms: int
    detail: str = ""


class Reader(msgspec.Struct, frozen=True):
    """An agent's place in one partition, and the verdict on it; `behind_s` is the age of its oldest record."""

    agent: str
    topic: str
    partition: int
    status: Status
    since_ms: int
    why: str
    lag: int
    behind_s: float


class Channel(msgspec.Struct, frozen=True):
    """Sends of a channel: what is under way, and what became of attempts in the last half minute.

    `waiting` is how many wait for a place at the provider in each lane, `waiting_s` how long the first of them has.
    """

    name: str
    in_flight: int = 0
    in_flight_max: int = 0
    pending: int = 0
    retry: int = 0
    held: int = 0
    silent_hosts: int = 0
    oldest_attempt_s: float = 0.0
    sent: float = 0.0
    retried: float = 0.0
    failed: float = 0.0
    waiting: dict[str, int] = {}
    waiting_s: dict[str, float] = {}


class Facts(msgspec.Struct, frozen=True):
    """Everything that a verdict needs. Counts are of the last half minute."""

    at_ms: int
    workers: Sequence[Worker] = ()
    readers: Sequence[Reader] = ()
    channels: Sequence[Channel] = ()
    assigned: int = 0
    opened: int = 0
    restoring: dict[str, int] = {}
    rebalancing: bool = False
    overdue_s: float = 0.0
    dead_letters: dict[str, float] = {}
    records: float = 0.0
    blocked_s: float = 0.0
    canary_every_s: float = 0.0
    canary_waiting_s: float = 0.0
    canary_p99_s: float | None = None


class Finding(msgspec.Struct, frozen=True):
    """One component's state in words; `since_ms` is None where only whoever keeps findings can know."""

    component: str
    state: Status
    why: str
    since_ms: int | None = None


def findings(facts: Facts) -> list[Finding]:
    """Every component once, the gravest first, then in the order in which data flows."""
    found = [
        *_workers(facts.workers),
        *_partitions(facts),
        *_readers(facts.readers),
        *(_channel(channel, facts.at_ms) for channel in facts.channels),
        *_timers(facts),
        *_canary(facts),
        _dead_letters(facts),
    ]
    return sorted(found, key=lambda each: -STATUSES.index(each.state))


def headline(found: Sequence[Finding]) -> str:
    """One sentence: all is well, or which components are not."""
    bad = [each for each in found if each.state != "OK"]
    if not bad:
        return f"Healthy: all {len(found)} components are OK"
    names = ", ".join(each.component for each in bad)
    return f"{len(bad)} of {len(found)} components need attention: {names}"


def _workers(workers: Iterable[Worker]) -> Iterator[Finding]:
    words: dict[str, tuple[Status, str]] = {
        "up": ("OK", "runs and answers"),
        "starting": ("WARN", "is starting"),
        "silent": ("STALL", "runs, but does not answer"),
        "ended": ("STOP", "is dead"),
        "cut off": ("STALL", "runs, but does not reach the log: it takes nothing"),
    }
    for worker in workers:
        state, why = words[worker.state]
        detail = f"; {worker.detail}" if worker.detail else ""
        name = worker.name if worker.name == "door" else f"worker {worker.name}"
        yield Finding(name.capitalize(), state, why + detail, worker.since_ms)


def _partitions(facts: Facts) -> Iterator[Finding]:
    name = "Partitions"
    if facts.blocked_s >= BLOCKED_S:
        yield Finding("Event loop", "STALL", f"has not turned for {facts.blocked_s:.0f} s")
    if facts.restoring:
        left = sum(facts.restoring.values())
        where = ", ".join(sorted(facts.restoring, key=int))
        yield Finding(name, "WARN", f"restoring {where}: {left:,} changelog records left")
    elif facts.opened < facts.assigned:
        yield Finding(name, "WARN", f"{facts.assigned - facts.opened} of {facts.assigned} are not open yet")
    elif facts.rebalancing:
        yield Finding(name, "WARN", "moving between workers; nothing is read meanwhile")
    elif facts.assigned:
        yield Finding(name, "OK", f"all {facts.opened} are open")


def _readers(readers: Sequence[Reader]) -> Iterator[Finding]:
    names = list(dict.fromkeys((*_AGENTS, *(reader.agent for reader in readers))))
    for agent in names:
        mine = [reader for reader in readers if reader.agent == agent]
        if not mine:
            continue
        state = worst([reader.status for reader in mine])
        those = [reader for reader in mine if reader.status == state]
        gravest = max(those, key=lambda reader: (reader.lag, -reader.partition))
        lag, behind_s = sum(reader.lag for reader in mine), max(reader.behind_s for reader in mine)
        since_ms = min(reader.since_ms for reader in those)
        if state == "OK":
            why = f"{lag:,} records wait, the oldest {behind_s:.1f} s" if lag else "everything is processed"
            since_ms = max(reader.since_ms for reader in mine)
        else:
            others = f" ({len(those) - 1} more partitions likewise)" if len(those) > 1 else ""
            why = f"{gravest.topic} partition {gravest.partition}: {gravest.why}{others}"
        yield Finding(_AGENTS.get(agent, agent), state, why, since_ms)


def _channel(channel: Channel, at_ms: int) -> Finding:
    name = f"Provider of {channel.name}"
    waiting = channel.pending + channel.retry
    tried = channel.sent + channel.retried + channel.failed
    if channel.oldest_attempt_s >= HANG_S:
        state: Status = "WARN" if channel.sent else "STALL"
        why = f"no answer for {channel.oldest_attempt_s:.0f} s to {channel.in_flight} sends under way"
        return Finding(name, state, f"{why}; {waiting:,} wait", at_ms - round(channel.oldest_attempt_s * 1000))
    if channel.silent_hosts and not channel.sent and (channel.in_flight or waiting):
        return Finding(name, "STALL", f"{_count(channel.silent_hosts, 'host')} without an answer; {waiting:,} wait")
    if channel.silent_hosts:
        return Finding(name, "WARN", f"{_count(channel.silent_hosts, 'host')} without an answer; others go on")
    if tried and (channel.retried + channel.failed) / tried >= FAILING_RATIO:
        share = (channel.retried + channel.failed) / tried
        return Finding(name, "WARN", f"{share:.0%} of attempts failed in the last half minute; {waiting:,} wait")
    late_s = channel.waiting_s.get("transactional", 0.0)
    if late_s >= LATE_S:
        mine = _count(channel.waiting.get("transactional", 0), "transactional send")
        return Finding(name, "WARN", f"{mine} wait for a place, the first for {late_s:.0f} s")
    if channel.held:
        return Finding(name, "WARN", f"{_count(channel.held, 'send')} uncertain: release or discard them")
    return Finding(name, "OK", f"answers; {waiting:,} wait" if waiting else "nothing waits")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _timers(facts: Facts) -> Iterator[Finding]:
    if facts.opened:
        late = facts.overdue_s >= LATE_S
        why = f"the oldest is {facts.overdue_s:.0f} s late" if late else "none is late"
        yield Finding("Timers", "WARN" if late else "OK", why)


def _canary(facts: Facts) -> Iterator[Finding]:
    """How the canary does, where there is one."""
    waiting_s, p99_s = facts.canary_waiting_s, facts.canary_p99_s
    if not facts.canary_every_s:
        return
    if waiting_s >= CANARY_S:
        yield Finding("Canary", "STALL", f"has been under way for {waiting_s:.0f} s: an event became no message")
    elif p99_s is not None and p99_s >= LATE_S:
        yield Finding("Canary", "WARN", f"needs {p99_s:.1f} s from event to message")
    else:
        yield Finding(
            "Canary", "OK", "is sent" if p99_s is None else f"event to message in {p99_s * 1000:.0f} ms (p99)"
        )


def _dead_letters(facts: Facts) -> Finding:
    count = sum(facts.dead_letters.values())
    if not count:
        return Finding("Dead letters", "OK", "none in the last half minute")
    reason = max(facts.dead_letters, key=lambda each: (facts.dead_letters[each], each))
    share = count / max(count, facts.records)
    why = f"{count:,.0f} in the last half minute, {share:.1%} of records, most for {reason}"
    return Finding("Dead letters", "WARN" if share >= DEAD_LETTER_RATIO else "OK", why)
