"""Lag: every partition's reader sampled, judged, and shown as gauges; series of partitions that left are removed."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

from agents.engine.transport import Log
from agents.status.series import Series
from config import metrics
from streams.lag_status import STATUSES, Sample, Window
from streams.policy.retention import read_retention
from streams.records import Place

MS: Final = 1_000


class Reading(NamedTuple):
    """How far a reader is: its position, and when the record there was appended (None: unknown)."""

    position: int
    oldest_ms: int | None = None


Key = tuple[str, str, int]
"""Agent, topic and partition."""


class LagWatch:
    """A window per reader and partition. A partition that is not read any more keeps its window until `forget`."""

    def __init__(self, log: Log, retention: str = "") -> None:
        """`retention` is the setting of that name; on Kafka, where it does nothing, `keep` tells what holds."""
        self._log = log
        self._retention_ms: dict[str, int | None] = {
            name: kept.age_s * MS for name, kept in read_retention(retention).items()
        }
        self.windows: dict[Key, Window] = {}
        self._places: dict[str, Series] = {
            name: Series(getattr(metrics, name))
            for name in (
                *("LAG_RECORDS", "LAG_SECONDS", "CONSUMER_POSITION", "CONSUMER_STATUS", "CONSUMER_STATUS_SINCE"),
                *("RETENTION_HEADROOM_SECONDS", "LOG_END", "LOG_START"),
            )
        }

    def keep(self, kept_ms: Mapping[str, int | None]) -> None:
        """From now on judge by these: how long each topic keeps a record, None for ever."""
        self._retention_ms = dict(kept_ms)
        for (_, topic, _), window in self.windows.items():
            window.retention_ms = self._retention_ms.get(topic)

    def forget(self, kept: Iterable[Key]) -> None:
        """Drop the windows of every reader but these."""
        wanted = set(kept)
        self.windows = {key: window for key, window in self.windows.items() if key in wanted}

    async def sample(self, readings: Mapping[Key, Reading], at_ms: int) -> None:
        """Ask the log for starts and ends, and take a sample of every reading; other windows hear the new end."""
        places: list[Place] = sorted({key[1:] for key in (*readings, *self.windows)})
        starts, ends = await self._log.starts(places), await self._log.ends(places)
        for key, window in self.windows.items():
            if key not in readings:
                window.hear_end(ends[key[1:]])
        for key, reading in readings.items():
            place = key[1:]
            window = self.windows.setdefault(key, Window(self._retention_ms.get(key[1])))
            window.add(Sample(at_ms, reading.position, ends[place], starts[place], reading.oldest_ms))

    def show(self, now_ms: int, hidden: Collection[Key] = ()) -> None:
        """Bring the gauges to what the windows say at this time, but for those that others show."""
        values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in self._places}
        for (agent, topic, partition), window in self.windows.items():
            newest, verdict = window.newest, window.judge(now_ms)
            if newest is None or (agent, topic, partition) in hidden:
                continue
            labels, place = (agent, topic, str(partition)), (topic, str(partition))
            values["LAG_RECORDS"][labels] = newest.lag
            values["LAG_SECONDS"][labels] = window.behind_ms(now_ms) / MS
            values["CONSUMER_POSITION"][labels] = newest.position
            values["CONSUMER_STATUS_SINCE"][labels] = verdict.since_ms / MS
            values["LOG_END"][place], values["LOG_START"][place] = newest.end, newest.start
            for status in STATUSES:
                values["CONSUMER_STATUS"][*labels, status] = status == verdict.status
            headroom_ms = window.headroom_ms(now_ms)
            if headroom_ms is not None:
                values["RETENTION_HEADROOM_SECONDS"][labels] = headroom_ms / MS
        for name, series in self._places.items():
            series.show(values[name])

    def rows(self, now_ms: int) -> list[dict[str, Any]]:
        """The same as rows, one per reader and partition."""
        rows = []
        for (agent, topic, partition), window in sorted(self.windows.items()):
            newest, verdict = window.newest, window.judge(now_ms)
            if newest is not None:
                row = {"agent": agent, "topic": topic, "partition": partition, "status": verdict.status}
                row |= {"lag": newest.lag, "behind_s": window.behind_ms(now_ms) / MS, "since_ms": verdict.since_ms}
                rows.append(
                    {
                        **row,
                        "why": verdict.why,
                        "position": newest.position,
                        "end": newest.end,
                        "oldest_ms": newest.oldest_ms,
                    }
                )
        return rows
