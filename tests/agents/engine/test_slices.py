"""Slices in flight: when there is room again, the reader looks again at once."""

import asyncio
from pathlib import Path

from agents.engine.embedded import EmbeddedTransport
from agents.engine.slices import IN_FLIGHT_MAX, Slices
from config.clock import ManualClock
from streams.records import SLICE_BYTES_MAX, Output
from tables.store import Store

PLACE = ("mailbox", 0)


async def test_a_finished_slice_wakes_the_reader(tmp_path: Path) -> None:
    """A reader that waits because enough is in flight goes on when a slice is finished, though nothing is appended."""
    store = Store(tmp_path)
    transport = EmbeddedTransport(store, ManualClock(0), "headrace", 1)
    slices = Slices(transport)
    slices.assign(PLACE, 0)
    slices.paused = False
    for _ in range(IN_FLIGHT_MAX + 1):  # each too large to share a slice with the next
        await transport.append([Output(*PLACE, None, bytes(SLICE_BYTES_MAX))])
    pieces = [slices.take(PLACE) for _ in range(IN_FLIGHT_MAX)]
    assert slices.take(PLACE) is None
    transport.listen()
    waiting = asyncio.create_task(transport.wait(30))
    await asyncio.sleep(0)

    assert pieces[0] is not None
    slices.finish(pieces[0])

    async with asyncio.timeout(5):
        await waiting
    assert slices.take(PLACE) is not None
    store.close()


async def test_who_has_a_slice_in_flight_is_not_caught_up(tmp_path: Path) -> None:
    """A slice may be had before news of a later end, as on Kafka: until it is finished its reader is not caught up."""
    store = Store(tmp_path)
    transport = EmbeddedTransport(store, ManualClock(0), "headrace", 1)
    slices = Slices(transport)
    slices.assign(PLACE, 0)
    slices.paused = False
    await transport.append([Output(*PLACE, None, b"a")])
    piece = slices.take(PLACE)
    transport.end = lambda topic, partition: 0  # type: ignore[method-assign]

    assert piece is not None
    assert not slices.is_caught_up(PLACE)
    slices.finish(piece)
    assert slices.is_caught_up(PLACE)
    store.close()
