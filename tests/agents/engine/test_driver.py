"""The driver looks through all places: what arrives behind its back is found at its next look, and at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from agents.engine import driver
from agents.engine.driver import SliceConsumer
from agents.engine.embedded import EmbeddedTransport
from agents.engine.slices import Slices
from config.clock import ManualClock
from streams.records import Output
from tables.store import Store

PLACES = ("mailbox", 0), ("mailbox", 1)


class Resting:
    """A pace that rests in front of the second place, once; meanwhile something arrives at the first."""

    def __init__(self, transport: EmbeddedTransport) -> None:
        self._transport = transport
        self._looks = 0

    @property
    def spent(self) -> bool:
        self._looks += 1
        return self._looks == len(PLACES)

    async def rest(self) -> None:
        await self._transport.append([Output(*PLACES[0], None, b"late")])


async def test_what_arrives_while_a_look_rests_is_taken_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An arrival at a place that the look has passed does not wait for the next arrival, or for the idle wait."""
    monkeypatch.setattr(driver, "IDLE_WAIT_S", 1_000)
    store = Store(tmp_path)
    transport = EmbeddedTransport(store, ManualClock(0), "headrace", 2)
    slices = Slices(transport)
    for place in PLACES:
        slices.assign(place, 0)
    slices.paused = False
    fetcher = SimpleNamespace(should_stop=False)
    taken = []

    async def callback(message: SimpleNamespace) -> None:
        taken.append(message.value)
        fetcher.should_stop = True

    consumer = SimpleNamespace(
        app=SimpleNamespace(headrace=SimpleNamespace(pace=Resting(transport)), consumer_generation_id=1),
        should_stop=False,
        flow_active=True,
        callback=callback,
        _slices=slices,
        _log=transport,
        _places=lambda: [(TP(*place), place) for place in PLACES],
    )
    async with asyncio.timeout(10):
        await SliceConsumer._drain_messages(cast("SliceConsumer", consumer), cast("Any", fetcher))
    store.close()

    assert [(piece.partition, [record.value for record in piece.records]) for piece in taken] == [(0, [b"late"])]
