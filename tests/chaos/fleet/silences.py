"""A connection that never answers: between one worker and the broker all is silent, and nothing is closed."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from agents.engine.kafka.clients import REQUEST_S_MAX
from tests.chaos.fleet.faults import Fault, busy, one_of
from tests.chaos.fleet.line import SIDES, line_to
from tests.chaos.fleet.members import Member
from tests.chaos.fleet.session import Fleet

SILENT_S: Final = REQUEST_S_MAX + 5.0


async def silent(fleet: Fleet) -> bool:
    """For longer than a request may take, one hears nothing from its broker; it ends, or goes on afterwards."""
    member = one_of(fleet)
    await fleet.stop(member)
    await fleet.whole()
    async with line_to(fleet.broker) as (line, port):
        member.through = port
        try:
            await member.start()
            await fleet.whole()
            await busy(fleet)
            began, ends = time.monotonic(), len(member.ends)
            line.hush(fleet.dice.choice(SIDES))
            member.frozen = True  # whoever asks it what the broker has to tell waits in vain
            taken_over = await fleet.whole()
            await asyncio.sleep(max(0.0, began + SILENT_S - time.monotonic()))
            await fleet.settle_held()
            await asyncio.sleep(1.0)  # what was released is sent before the other is back
            line.resume(forgets=fleet.dice.random() < 0.5)
            member.frozen = False
            has_recovered = await _has_recovered(fleet, member, ends)
            await busy(fleet)
        finally:
            member.through = 0  # its next life
            await fleet.stop(member)
    await member.start()
    return await fleet.whole() and taken_over and has_recovered


async def _has_recovered(fleet: Fleet, member: Member, ends: int) -> bool:
    if await fleet.until("whole behind a silence", lambda found: found["partitions"] == list(range(fleet.partitions))):
        return True
    fleet.faults.append(
        f"{member.name} neither went on nor ended ({len(member.ends) - ends} ends): {member.last_words()}"
    )
    return False


SILENCES: Final[dict[str, Fault]] = {"fault: a connection that never answers": silent}
