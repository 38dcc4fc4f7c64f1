"""What feeds ask for and when: of other places while fetches are under way, and of one that is far behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import pytest
from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from agents.engine.kafka.feeds import LINES, Feeds
from agents.engine.kafka.fetches import Fetched
from agents.engine.pace import Pace
from config.settings import Settings

OLD, NEW = ("events", 0), ("events", 1)


class Broker:
    """Leads everything, and answers each fetch when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.asked: list[set[int]] = []

    def by_leader(self, wanted: dict[TopicPartition, int]) -> dict[int, dict[TopicPartition, int]]:
        return {1: wanted} if wanted else {}

    async def fetch(self, leader: int, wanted: dict[TopicPartition, int], *sizes: int) -> Iterable[Fetched]:
        self.asked.append({tp.partition for tp in wanted})
        await self.let.wait()
        return [Fetched(tp, offset, b"", [], 7) for tp, offset in wanted.items()]


@pytest.mark.parametrize("turns", range(4))
async def test_what_is_followed_no_more_is_left_out(turns: int) -> None:
    """Wherever a fetch is when others are followed, before its begin or behind it, its answer ends nobody."""
    feeds, broker = Feeds(Settings(), Pace()), Broker()
    feeds._readers = dict.fromkeys(feeds._readers, broker)  # type: ignore[arg-type]
    feeds.follow({OLD: 0})
    pump = asyncio.create_task(feeds._pump(LINES[0]))
    for _ in range(turns):
        await asyncio.sleep(0)
    feeds.follow({NEW: 0})
    broker.let.set()
    await asyncio.sleep(0.05)

    assert not pump.done()
    assert feeds.end(NEW) == 7
    assert feeds.end(OLD) == 0
    pump.cancel()
    with suppress(asyncio.CancelledError):
        await pump


class Slow(Broker):
    """Has five records, and gives one at a time."""

    async def fetch(self, leader: int, wanted: dict[TopicPartition, int], *sizes: int) -> Iterable[Fetched]:
        (tp, offset), *_ = wanted.items()
        self.asked.append({offset})
        if offset == 4:
            self.let.set()
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
        builder.append(0, 1, b"key", b"value", [])
        data = bytearray(builder.build())
        data[:8] = offset.to_bytes(8, "big")
        return [Fetched(tp, offset, bytes(data) if offset < 5 else b"", [], 5)]


async def test_the_gap_is_left_only_when_all_is_read() -> None:
    """Who is far behind is not held up between two fetches; who has read all asks as rarely as it may."""
    feeds, broker = Feeds(Settings(), Pace()), Slow()
    feeds._readers = dict.fromkeys(feeds._readers, broker)  # type: ignore[arg-type]
    feeds.follow({OLD: 0})
    pump = asyncio.create_task(feeds._pump(LINES[0]._replace(gap_s=60)))
    await asyncio.wait_for(broker.let.wait(), 5)
    await asyncio.sleep(0.05)

    assert [record.offset for record in feeds.read(OLD, 0)] == [0, 1, 2, 3, 4]
    assert broker.asked == [{0}, {1}, {2}, {3}, {4}]
    pump.cancel()
    with suppress(asyncio.CancelledError):
        await pump
