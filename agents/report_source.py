"""Where reports are read: the counters of every partition, from this process's own store, or as told to all."""

from collections.abc import Iterator
from typing import Final, Protocol

from agents.engine.pace import Pace
from streams.reports import About, Bucket, Counts, Unit
from tables.reports import ReportRows
from tables.store import Store

PIECE_ROWS: Final = 100

Row = tuple[Bucket, Counts]


class ReportSource(Protocol):
    """The counters as last committed, partition by partition: several rows may be of one bucket."""

    async def totals(self) -> list[Row]:
        """The counts over all time, of every campaign."""

    async def series(self, campaign: str, unit: Unit) -> list[Row]:
        """A campaign's counts by the day or hour."""

    async def abouts(self) -> list[tuple[str, About]]:
        """What is known of each campaign that was sent."""

    async def stop(self) -> None:
        """Give back what questions have taken."""


class StoredReports:
    """Implements `ReportSource` over the store, which holds every partition."""

    def __init__(self, store: Store, partitions: int, pace: Pace) -> None:
        """Others work while much is read."""
        self._rows = ReportRows(store)
        self._partitions = range(partitions)
        self._pace = pace

    async def totals(self) -> list[Row]:
        """The counts over all time."""
        return [row for at in self._partitions for row in await self._read(self._rows.totals(at))]

    async def series(self, campaign: str, unit: Unit) -> list[Row]:
        """A campaign's counts by the day or hour."""
        return [row for at in self._partitions for row in await self._read(self._rows.series(at, campaign, unit))]

    async def abouts(self) -> list[tuple[str, About]]:
        """What is known of each campaign."""
        return [row for at in self._partitions for row in self._rows.abouts(at)]

    async def stop(self) -> None:
        """Nothing was taken."""

    async def _read(self, rows: Iterator[Row]) -> list[Row]:
        found: list[Row] = []
        for row in rows:
            found.append(row)
            if len(found) % PIECE_ROWS == 0:
                await self._pace.rest()
        return found
