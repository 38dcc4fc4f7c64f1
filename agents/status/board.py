"""The status board: the newest look at a process or a fleet, ten minutes of looks, and the verdict in words."""

import asyncio
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from agents.status.families import Family
from agents.status.lag import MS
from agents.status.numbers import Numbers, quantile
from config.clock import Clock
from streams import canary
from streams.health import Channel, Facts, Finding, Reader, Worker, findings, headline
from streams.lag_status import SAMPLE_MS, worst
from streams.sends import LANES

HISTORY_MAX: Final = 300
RECENT: Final = 15
"""Looks that "the last half minute" spans."""

PARTITIONS_SHOWN: Final = 16
QUANTILES: Final = (0.5, 0.95, 0.99)


class Look(NamedTuple):
    """What was found at one time: metric families per worker, the readers' rows, and the workers themselves."""

    at_ms: int
    families: dict[str, list[Family]]
    rows: list[dict[str, Any]]
    workers: list[Worker]


class Source(Protocol):
    """Who is looked at."""

    async def look(self) -> Look:
        """What is so now; takes at most about a second."""


class _Moment(NamedTuple):
    at_ms: int
    numbers: Numbers
    lag: dict[int, int]
    shown: dict[str, Any]


class Board:
    """Keeps ten minutes in memory; `report` is what the page and `/status.json` show."""

    def __init__(self, source: Source, clock: Clock, about: dict[str, Any]) -> None:
        """`about` says what runs; it holds nothing secret."""
        self._source = source
        self._clock = clock
        self._about = about
        self._moments: deque[_Moment] = deque(maxlen=HISTORY_MAX)
        self._since: dict[tuple[str, str], int] = {}
        self._look: Look | None = None
        self._facts: Facts | None = None
        self._found: list[Finding] = []
        self._restoring: dict[str, int] = {}

    async def run(self) -> None:
        """Look for as long as the process lives."""
        while True:
            await self.look()
            await asyncio.sleep(SAMPLE_MS / MS)

    async def look(self) -> None:
        """Look once."""
        look = self._look = await self._source.look()
        numbers = Numbers(look.families)
        lag: dict[int, int] = {}
        for row in look.rows:
            lag[row["partition"]] = lag.get(row["partition"], 0) + row["lag"]
        last = self._moments[-1] if self._moments else None
        self._moments.append(_Moment(look.at_ms, numbers, lag, _shown(look.at_ms, numbers, last)))
        self._facts = self._gather(look, numbers)
        left = self._facts.restoring
        self._restoring = {at: max(count, self._restoring.get(at, 0)) for at, count in left.items()}
        self._found = self._dated(findings(self._facts), look.at_ms)

    def _gather(self, look: Look, numbers: Numbers) -> Facts:
        before = self._before.numbers
        outcomes = numbers.rise(before, "headrace_send_outcomes_total", "channel", "outcome")
        letters = numbers.rise(before, "headrace_dead_letters_total", "reason")
        read = numbers.rise(before, "headrace_records_read_total", "agent")
        restoring = numbers.by("headrace_restore_remaining_records", "partition")
        readers = [msgspec.convert({name: row[name] for name in _READER}, Reader) for row in look.rows]
        return Facts(
            at_ms=look.at_ms,
            workers=look.workers,
            readers=readers,
            channels=[_channel(name, numbers, outcomes) for name in sorted(_channels(numbers))],
            assigned=int(numbers.total("headrace_partitions_assigned")),
            opened=int(numbers.total("headrace_partitions_held")),
            restoring={partition: int(left) for (partition,), left in restoring.items()},
            rebalancing=bool(numbers.total("headrace_rebalancing")),
            overdue_s=numbers.most("headrace_timers_overdue_seconds"),
            dead_letters={reason: count for (reason,), count in letters.items() if count},
            records=read.get(("intake",), 0.0),
            blocked_s=numbers.most("headrace_loop_blocked_seconds"),
            canary_every_s=numbers.most("headrace_canary_interval_seconds"),
            canary_waiting_s=numbers.most("headrace_canary_waiting_seconds"),
            canary_p99_s=quantile(numbers.rise(before, "headrace_canary_seconds_bucket", "le"), QUANTILES[-1]),
        )

    @property
    def _before(self) -> _Moment:
        """The moment half a minute ago, or the first."""
        return self._moments[max(0, len(self._moments) - 1 - RECENT)]

    def _dated(self, found: list[Finding], at_ms: int) -> list[Finding]:
        """Give each finding its time: its own, or when it was first seen in this state."""
        keys = {(each.component, each.state) for each in found}
        since: dict[tuple[str, str], int] = {key: began for key, began in self._since.items() if key in keys}
        for each in found:
            key = (each.component, each.state)
            known = [at for at in (since.get(key), each.since_ms) if at is not None]
            since[key] = min(known, default=at_ms)
        self._since = since
        return [msgspec.structs.replace(each, since_ms=since[each.component, each.state]) for each in found]

    def summary(self) -> dict[str, Any]:
        """The first screen: one sentence, and every component with its state, since when, and why."""
        return {
            "at_ms": self._look.at_ms if self._look else self._clock.now_ms(),
            "state": worst([each.state for each in self._found]),
            "headline": headline(self._found) if self._look else "Starting",
            "components": [msgspec.to_builtins(each) for each in self._found],
        }

    def report(self, after_ms: int = 0) -> dict[str, Any]:
        """Everything that the page shows; of history only what came after a time."""
        facts, look = self._facts, self._look
        if facts is None or look is None:
            return {**self._about, **self.summary()}
        numbers = self._moments[-1].numbers
        segments = numbers.by("headrace_segment_freshness_seconds", "segment", "worker")
        freshness: dict[str, float] = {}
        for (name, _), value in segments.items():
            freshness[name] = max(freshness.get(name, 0.0), value)
        due = [at for at in numbers.by("headrace_timers_next_timestamp_seconds", "partition").values() if at]
        letters = numbers.by("headrace_dead_letters_total", "reason")
        return {
            **self._about,
            **self.summary(),
            "workers": [msgspec.to_builtins(each) for each in look.workers],
            "readers": look.rows,
            "channels": [msgspec.to_builtins(each) for each in facts.channels],
            "dead_letters": [
                {"reason": reason, "total": int(count), "recent": int(facts.dead_letters.get(reason, 0))}
                for (reason,), count in sorted(letters.items())
            ],
            "partitions": {"assigned": facts.assigned, "opened": facts.opened, "restoring": facts.restoring},
            "restore": [
                {"partition": int(at), "left": facts.restoring[at], "most": most}
                for at, most in sorted(self._restoring.items(), key=lambda each: int(each[0]))
            ],
            "canary": {
                "on": facts.canary_every_s > 0,
                "waiting_s": facts.canary_waiting_s,
                "p99_s": facts.canary_p99_s,
            },
            "segments": freshness,
            "timers": {"overdue_s": facts.overdue_s, "next_s": min(due, default=None)},
            "now": self._moments[-1].shown,
            "history": self._history(after_ms),
        }

    def _history(self, after_ms: int) -> dict[str, Any]:
        """Columns: a list per line of a chart, one value per look; partitions that lagged most, and the rest."""
        moments = [each for each in self._moments if each.at_ms > after_ms]
        newest = self._moments[-1].lag
        chosen = sorted(sorted(newest, key=lambda at: (-newest[at], at))[:PARTITIONS_SHOWN])
        columns: dict[str, list[Any]] = {"at_s": [each.at_ms / MS for each in moments]}
        for name in self._moments[-1].shown:
            columns[name] = [each.shown.get(name) for each in moments]
        lag = {f"partition {at}": [each.lag.get(at) for each in moments] for at in chosen}
        if len(newest) > len(chosen):
            lag["others"] = [sum(n for at, n in each.lag.items() if at not in chosen) for each in moments]
        return {**columns, "lag": lag}


_READER: Final = tuple(field.name for field in msgspec.structs.fields(Reader))


def _channels(numbers: Numbers) -> set[str]:
    return {channel for (channel,) in numbers.by("headrace_sends_in_flight_max", "channel")} - {canary.CHANNEL}


def _channel(name: str, numbers: Numbers, outcomes: dict[tuple[str, ...], float]) -> Channel:
    open_ = numbers.by("headrace_dispatches", "channel", "state")
    waiting = numbers.by("headrace_sends_waiting", "channel", "lane")
    return Channel(
        name,
        in_flight=int(numbers.by("headrace_sends_in_flight", "channel").get((name,), 0)),
        in_flight_max=int(numbers.by("headrace_sends_in_flight_max", "channel").get((name,), 0)),
        pending=int(open_.get((name, "pending"), 0)),
        retry=int(open_.get((name, "retry"), 0)),
        held=int(open_.get((name, "held"), 0)),
        silent_hosts=int(numbers.most("headrace_send_silent_hosts", channel=name)),
        oldest_attempt_s=numbers.most("headrace_send_oldest_attempt_seconds", channel=name),
        sent=outcomes.get((name, "sent"), 0.0),
        retried=outcomes.get((name, "retry"), 0.0),
        failed=outcomes.get((name, "failed"), 0.0),
        waiting={lane: int(waiting.get((name, lane), 0)) for lane in LANES},
        waiting_s={lane: numbers.most("headrace_sends_waiting_seconds", channel=name, lane=lane) for lane in LANES},
    )


_TOLD: Final = ("sent", "retry", "failed")
_COLUMNS: Final = ("events_per_s", "sends_per_s", "failed_per_s", "refused_per_s", "p50", "p95", "p99", "canary_s")


def _shown(at_ms: int, numbers: Numbers, last: _Moment | None) -> dict[str, Any]:
    """The numbers of one look that charts show, per second since the look before."""
    if last is None or at_ms <= last.at_ms:
        return dict.fromkeys(_COLUMNS)
    seconds = (at_ms - last.at_ms) / MS

    def grown(name: str, *labels: str) -> dict[tuple[str, ...], float]:
        return numbers.rise(last.numbers, name, *labels)

    outcomes = grown("headrace_send_outcomes_total", "channel", "outcome")
    told = {kind: sum(n for (at, of), n in outcomes.items() if of == kind and at != canary.CHANNEL) for kind in _TOLD}
    ages = grown("headrace_event_age_seconds_bucket", "le")
    return {
        "events_per_s": sum(grown("headrace_events_applied_total", "type").values()) / seconds,
        "sends_per_s": told["sent"] / seconds,
        "failed_per_s": (told["retry"] + told["failed"]) / seconds,
        "refused_per_s": sum(grown("headrace_dead_letters_total", "reason").values()) / seconds,
        **{f"p{share * 100:.0f}": quantile(ages, share) for share in QUANTILES},
        "canary_s": quantile(grown("headrace_canary_seconds_bucket", "le"), QUANTILES[0]),
    }
