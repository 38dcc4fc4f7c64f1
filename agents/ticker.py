"""The ticker: when a timer comes due and nothing arrives, time itself becomes a record."""

import asyncio
from typing import Final

from agents.engine.engine import Engine
from agents.users import Users
from streams import topics
from streams.codec import pack
from streams.mailbox import Tick
from streams.records import Output
from streams.segments.filter import earliest

TICK_S_MIN: Final = 0.05
LOOK_S_MAX: Final = 0.25


async def run_ticker(engine: Engine, users: Users) -> None:
    """Append a tick to every partition that is caught up and has a timer or a campaign due; silent in stream mode."""
    if engine.settings.clock == "stream":
        return
    while True:
        now_ms = engine.clock.now_ms()
        ticks = []
        nearest_ms = now_ms + int(LOOK_S_MAX * 1000)
        for partition, state in sorted(users.states.items()):
            if not engine.slices.is_caught_up((topics.MAILBOX.name, partition)):
                continue
            due_ms = earliest([state.due.earliest_of_all(), users.folds[partition].fanning.coming_ms])
            if due_ms is not None and due_ms <= now_ms:
                ticks.append(Output(topics.MAILBOX.name, partition, None, pack(Tick(now_ms))))
            elif due_ms is not None:
                nearest_ms = min(nearest_ms, due_ms)
        if ticks:
            await engine.transport.append(ticks)
        await asyncio.sleep(max(TICK_S_MIN, (nearest_ms - engine.clock.now_ms()) / 1000))
