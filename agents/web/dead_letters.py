"""Dead letters as operators use them: the newest listed, and put back into events once their cause is gone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from msgspec.structs import replace

from agents.engine.engine import Engine
from config import metrics
from streams import topics
from streams.errors import BadSetting
from streams.records import Record
from streams.replays import Letter, read_letter, replays_of
from streams.times import format_time
from tables.replayed import Replayed
from tables.store import Store

WINDOW_RECORDS: Final = 1_000
PAGE_RECORDS: Final = 200
LIST_MAX: Final = 10_000
VALUE_BYTES_SHOWN: Final = 1_024
_TOPIC: Final = topics.DEAD_LETTERS.name


class DeadLetters:
    """Lists and replays; memory is bounded by a page and by what is listed."""

    def __init__(self, store: Store, engine: Engine) -> None:
        """Read and replay the partitions of this process, or all of a folder that nobody runs."""
        self._store = store
        self._engine = engine
        self._transport = engine.transport
        self._lock = asyncio.Lock()

    @property
    def _held(self) -> list[int]:
        return sorted(self._engine.held) if self._engine.failure else list(range(self._transport.partitions))

    async def newest(self, *, reason: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """The newest dead letters of a reason, or of any, oldest first; 1 to 10,000."""
        limit = max(1, min(limit, LIST_MAX))
        found: list[tuple[int, dict[str, Any]]] = []
        for partition, (start, upper) in (await self._bounds(self._held)).items():
            newest: list[tuple[int, dict[str, Any]]] = []
            for end in range(upper, start, -WINDOW_RECORDS):
                newest = await self._shown(partition, max(start, end - WINDOW_RECORDS), end, reason) + newest
                if len(newest) >= limit:
                    break
            found += newest[-limit:]
        found.sort(key=lambda row: row[0])
        return [shown for _, shown in found[-limit:]]

    async def _shown(self, partition: int, start: int, end: int, reason: str) -> list[tuple[int, dict[str, Any]]]:
        replayed = Replayed(self._store, partition).between(start, end)
        return [
            (record.append_ms, _as_answer(partition, record.offset, letter, replayed.get(record.offset)))
            async for page in self._pages(partition, start, end)
            for record in page
            if (letter := read_letter(record)).reason == reason or not reason
        ]

    async def replay(
        self,
        partition: int,
        *,
        reason: str = "",
        limit: int = 0,
        again: bool = False,
        start: int = 0,
        end: int | None = None,
    ) -> dict[str, int] | None:
        """Put the letters in one partition back into `events`, oldest first; each at most once.

        Args:
            partition: of dead-letters.
            reason: only letters with this reason; empty for all.
            limit: at most so many letters; 0 for no limit.
            again: also letters that were replayed before.
            start: only letters at or above this offset.
            end: only letters below this offset; None for those that are there now, since a letter may be refused
                and come back behind them.

        Returns:
            {"letters": n, "records": n, "replayed_before": n, "gone": n, "next": offset, "end": offset}: a record
            of which several items were refused is appended once; `gone` are letters that do not hold the record's
            bytes. A call with `next` as `start` goes on, until it is `end`. None where another process holds the
            partition.

        Raises:
            BadSetting: on Kafka, of a folder that nobody runs: only a worker that owns a partition may write.
        """
        if self._engine.settings.on_kafka and not self._engine.failure:
            raise BadSetting("on Kafka a running worker replays; start one, with the same HEADRACE_DATA")
        if partition not in self._held:
            return None
        counts = {"letters": 0, "records": 0, "replayed_before": 0, "gone": 0}
        async with self._lock:  # two replays at once would both find a letter unmarked
            kept, now = (await self._bounds([partition]))[partition]
            stop = now if end is None else min(end, now)
            reached = stop
            async for page in self._pages(partition, max(start, kept), stop):
                left = limit - counts["letters"] if limit else len(page)
                chosen, reached = self._choose(partition, page, reason, counts, again=again, left=left)
                await self._append(partition, chosen, counts)
                if limit and counts["letters"] >= limit:
                    break
            else:
                reached = stop
            await self._forget(partition, kept)
        return {**counts, "next": reached, "end": stop}

    def _choose(
        self, partition: int, page: list[Record], reason: str, counts: dict[str, int], *, again: bool, left: int
    ) -> tuple[list[tuple[int, Letter]], int]:
        """The first `left` letters of a page to replay, by offset, and the offset behind the last one looked at.

        The others of this reason, up to there, are counted.
        """
        replayed = Replayed(self._store, partition).between(page[0].offset, page[-1].offset + 1)
        chosen: list[tuple[int, Letter]] = []
        for record in page:
            if len(chosen) == left:
                return chosen, record.offset
            letter = read_letter(record)
            if reason and letter.reason != reason:
                continue
            if letter.stands_in or letter.topic != topics.EVENTS.name:
                counts["gone"] += 1
            elif record.offset in replayed and not again:
                counts["replayed_before"] += 1
            else:
                chosen.append((record.offset, letter))
        return chosen, page[-1].offset + 1

    async def _append(self, partition: int, chosen: list[tuple[int, Letter]], counts: dict[str, int]) -> None:
        """Replays and their marks, together."""
        if not chosen:
            return
        replays = replays_of([letter for _, letter in chosen])
        # The log may have had more partitions when the record was refused, before it was moved.
        outputs = [replace(each, partition=each.partition % self._transport.partitions) for each in replays]
        batch = self._transport.batch()
        marks = Replayed(self._store, partition)
        for offset, _ in chosen:
            marks.stage(batch, offset, self._engine.clock.now_ms())
        await self._transport.commit(partition, batch, outputs)
        counts["letters"] += len(chosen)
        counts["records"] += len(outputs)
        metrics.DEAD_LETTERS_REPLAYED.inc(len(chosen))

    async def _forget(self, partition: int, start: int) -> None:
        """Marks of letters that retention has dropped mean nothing any more."""
        batch = self._transport.batch()
        if Replayed(self._store, partition).stage_forgetting(batch, start, WINDOW_RECORDS):
            await self._transport.commit(partition, batch, ())

    async def _bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Per partition the first offset kept and the end, as they are now: what comes later is not waited for."""
        places = [(_TOPIC, partition) for partition in partitions]
        starts, ends = await self._transport.starts(places), await self._transport.ends(places)
        return {place[1]: (starts[place], ends[place]) for place in places}

    async def _pages(self, partition: int, start: int, end: int) -> AsyncIterator[list[Record]]:
        """The records in [start, end), a page at a time."""
        while start < end:
            page = await self._transport.look(_TOPIC, partition, start, min(PAGE_RECORDS, end - start))
            page = [record for record in page if record.offset < end]
            if not page:
                return
            yield page
            start = page[-1].offset + 1
            await self._engine.pace.breathe()


def _as_answer(partition: int, offset: int, letter: Letter, replayed_ms: int | None) -> dict[str, Any]:
    return {
        "letter": f"{partition}/{offset}",
        "at": letter.at,
        "reason": letter.reason,
        "field": letter.field,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "item": letter.item,
        "whole": letter.whole,
        "gone": letter.stands_in,
        "replayed": None if replayed_ms is None else format_time(replayed_ms),
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "bytes": len(letter.value),
        "value": letter.value[:VALUE_BYTES_SHOWN].decode(errors="replace"),
    }
