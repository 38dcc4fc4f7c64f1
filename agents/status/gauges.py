"""What a worker shows of itself beside what its agents count: sampled every two seconds, beside the agents."""

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka.errors import KafkaError

from agents.status.board import Look
from agents.status.families import families_of
from agents.status.lag import MS, Key, LagWatch, Reading
from agents.status.series import Series
from config import metrics
from streams import canary, topics
from streams.errors import OutsideFailing
from streams.health import Worker
from streams.lag_status import SAMPLE_MS
from streams.sends import LANES

if TYPE_CHECKING:
    from agents.node import Node  # which imports this

OTHER_SEGMENTS: Final = "*"
"""The series of all segments beyond `HEADRACE_SEGMENT_SERIES`; no segment can have that name."""

STUCK_MS: Final = 120_000
"""A reader that has made no progress for so long fails `/health/live`, so that a supervisor starts the worker anew."""

ASK_S_MAX: Final = 2.0
OPEN_STATES: Final = ("pending", "attempting", "retry", "held")
_OTHERS: Final = {canary.CAMPAIGN: canary.CHANNEL}
_log: Final = structlog.get_logger("headrace")


class Gauges:
    """Samples a node; everything it reads is in memory, but for the log's starts and ends."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._began_ms = node.engine.clock.now_ms()
        self.lag = LagWatch(node.log, "" if node.settings.on_kafka else node.settings.retention)
        self.stuck = False
        self._has_others = False
        self._stalled: set[Key] = set()
        self._dispatches = Series(metrics.DISPATCHES)
        self._waiting = Series(metrics.SENDS_WAITING)
        self._waiting_s = Series(metrics.SENDS_WAITING_SECONDS)
        self._overdue = Series(metrics.TIMERS_OVERDUE_SECONDS)
        self._next = Series(metrics.TIMERS_NEXT)
        self._segments = Series(metrics.SEGMENT_FRESHNESS_SECONDS)

    async def run(self) -> None:
        """Sample for as long as the process lives."""
        while True:
            await self.sample()
            await asyncio.sleep(SAMPLE_MS / MS)

    async def sample(self) -> None:
        """One look. A log that does not answer leaves the windows as they are, until they say STOP."""
        now_ms = self._node.engine.clock.now_ms()
        readings = self._readings()
        self.lag.forget(readings)
        try:
            async with asyncio.timeout(ASK_S_MAX):  # a hung log must not hide what else is to be seen
                await self.lag.sample(readings, now_ms)
        except (KafkaError, OutsideFailing, OSError) as error:
            _log.warning("the log does not answer", error=type(error).__name__)
        await self._node.engine.pace.breathe()
        self.show()

    def _readings(self) -> dict[Key, Reading]:
        engine = self._node.engine
        return {
            (reader, *place): Reading(finished, engine.slices.oldest_ms(place, reader))
            for (reader, place), finished in engine.slices.readings().items()
        }

    def show(self) -> None:
        """Bring every gauge up to date with what is known now."""
        now_ms = self._node.engine.clock.now_ms()
        self.lag.show(now_ms)
        self._watch_lanes(now_ms)
        self._membership()
        self._sending()
        self._lanes(now_ms)
        self._node.canary.show()
        overdue_s = self._timers(now_ms)
        self._freshness(now_ms, max(overdue_s.values(), default=0.0))
        metrics.EXPORT_WAITING.set(self._node.export.waiting)

    def _watch_lanes(self, now_ms: int) -> None:
        """Say once that a reader makes no progress; from the time when it must not go on so, `stuck` holds."""
        stalled = {key: window.judge(now_ms) for key, window in self.lag.windows.items()}
        stalled = {key: verdict for key, verdict in stalled.items() if verdict.status == "STALL"}
        for (agent, topic, partition), verdict in stalled.items():
            if (agent, topic, partition) not in self._stalled:
                metrics.WATCHDOG_STALLS.labels("reader").inc()
                _log.error("no progress", agent=agent, topic=topic, partition=partition, why=verdict.why)
        self._stalled = set(stalled)
        self.stuck = any(now_ms - verdict.since_ms >= STUCK_MS for verdict in stalled.values())

    def _membership(self) -> None:
        engine = self._node.engine
        metrics.PARTITIONS_HELD.set(len(engine.held))
        metrics.PARTITIONS_WANTED.set(len(engine.assigned or ()))
        metrics.REBALANCING.set(engine.assigned is None or engine.slices.paused)

    def _sending(self) -> None:
        delivery, campaigns = self._node.delivery, self._node.workspaces.latest.campaigns
        counts: Counter[tuple[str, ...]] = Counter()
        for channel, pump in delivery.pumps.items():
            metrics.IN_FLIGHT.labels(channel).set(pump.in_flight)
            metrics.SILENT_HOSTS.labels(channel).set(pump.silent)
            metrics.OLDEST_ATTEMPT_SECONDS.labels(channel).set(delivery.oldest_s(channel))
            counts.update(dict.fromkeys(((channel, state) for state in OPEN_STATES), 0))
        for table in delivery.dispatches.values():
            for name, by_state in table.counts.items():
                channel = campaigns[name].channel if name in campaigns else _OTHERS.get(name, "unknown")
                for state in OPEN_STATES:
                    counts[channel, state] += by_state.get(state, 0)
        self._dispatches.show(counts)

    def _lanes(self, now_ms: int) -> None:
        """How many dispatches wait in each lane, and for how long the first of them has."""
        delivery = self._node.delivery
        depth, age_s = Counter[tuple[str, ...]](), dict[tuple[str, ...], float]()
        for channel in delivery.pumps:
            for lane in LANES:
                since = [table.oldest_ms(channel, lane) for table in delivery.dispatches.values()]
                oldest_ms = min((each for each in since if each is not None), default=now_ms)
                age_s[channel, lane] = max(0, now_ms - oldest_ms) / MS
                depth[channel, lane] = sum(table.waiting(channel, lane) for table in delivery.dispatches.values())
        self._waiting.show(depth)
        self._waiting_s.show(age_s)

    def _timers(self, now_ms: int) -> dict[int, float]:
        """How late each partition's oldest timer is, in seconds; under the stream clock none is ever late."""
        if self._node.settings.clock == "stream":
            return {}
        due = {at: state.due.earliest_of_all() for at, state in self._node.users.states.items()}
        late = {at: max(0, now_ms - due_ms) / MS if due_ms is not None else 0.0 for at, due_ms in due.items()}
        self._overdue.show({(str(at),): seconds for at, seconds in late.items()})
        self._next.show({(str(at),): due_ms / MS for at, due_ms in due.items() if due_ms is not None})
        return late

    def _freshness(self, now_ms: int, overdue_s: float) -> None:
        """A segment is as fresh as the partition that is furthest behind: in events, in mailbox, or in timers."""
        behind: dict[str, float] = {topics.EVENTS.name: 0.0, topics.MAILBOX.name: 0.0}
        for (_, topic, _), window in self.lag.windows.items():
            if topic in behind:
                behind[topic] = max(behind[topic], window.behind_ms(now_ms) / MS)
        names = sorted(each.name for each in self._node.workspaces.latest.segments)
        own = self._node.settings.segment_series
        shown = names[:own] + ([OTHER_SEGMENTS] if len(names) > own else [])
        if len(names) > own and not self._has_others:
            metrics.LIMIT_HITS.labels("segment_series").inc()
        self._has_others = len(names) > own
        fresh_s = max(*behind.values(), overdue_s)
        self._segments.show({(name,): fresh_s for name in shown})

    def readers(self) -> list[dict[str, Any]]:
        """The newest verdicts as rows."""
        return self.lag.rows(self._node.engine.clock.now_ms())

    async def look(self) -> Look:
        """This process alone, as the status board sees it."""
        now_ms = self._node.engine.clock.now_ms()
        worker = Worker("here", "up", self._began_ms)
        families = await asyncio.to_thread(families_of, metrics.REGISTRY)  # with many partitions tens of milliseconds
        return Look(now_ms, {"": families}, self.readers(), [worker])
