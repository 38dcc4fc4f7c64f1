"""Standbys promoted: a worker takes over, under load, partitions of which it has kept copies.

Such a fault has taken place only if the product says that it took its own copy and read on from where that ended.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from tests.chaos.fleet.faults import Fault, busy
from tests.chaos.fleet.members import Member
from tests.chaos.fleet.session import BASE, GUEST, LOOK_S, Fleet
from tests.chaos.session import GONE

FOLLOW_S_MAX: Final = 40.0
RESTORED: Final = "headrace_restored_records_total"
REMAINING: Final = "headrace_standby_remaining_records"


def two_of(fleet: Fleet) -> tuple[Member, Member]:
    """The two, in an order by chance: who is to go, and who takes over."""
    first, second = fleet.dice.sample(BASE, 2)
    return fleet.members[first], fleet.members[second]


async def promoted(fleet: Fleet) -> bool:
    """Kill -9 of one, whose partitions the other takes over from its copies; the first comes back."""
    member, heir = two_of(fleet)
    has_hit = await _keeps_copies(fleet, heir) and await _promotes(fleet, member, heir, signal.SIGKILL)
    await busy(fleet)
    await member.start()
    return await fleet.whole() and has_hit


async def promoted_for_good(fleet: Fleet) -> bool:
    """One is told to stop, and its folder is gone; a third comes in its place, and leaves: that moves at once."""
    (member, heir), guest = two_of(fleet), fleet.members[GUEST]
    has_hit = await _keeps_copies(fleet, heir) and await _promotes(fleet, member, heir, signal.SIGTERM)
    await asyncio.to_thread(shutil.rmtree, member.data, ignore_errors=True)
    await guest.start()
    has_hit &= await fleet.whole() and await _follows(heir) and await _promotes(fleet, guest, heir, signal.SIGTERM)
    await member.start()
    return await fleet.whole() and has_hit


async def promoted_again(fleet: Fleet) -> bool:
    """Who was promoted loses partitions to the restarted former owner, follows it, and is promoted once more."""
    member, heir = two_of(fleet)
    has_hit = await _keeps_copies(fleet, heir)
    for _ in range(2):
        has_hit &= await _promotes(fleet, member, heir, signal.SIGKILL)
        await member.start()
        has_hit &= await fleet.whole() and await _follows(heir)
    return has_hit


async def _keeps_copies(fleet: Fleet, heir: Member) -> bool:
    """Let a worker keep copies, from now to the session's end, and wait until it has them."""
    if not heir.standby or not heir.lives:
        await fleet.stop(heir)
        heir.standby = True
        await heir.start()
    return await fleet.whole() and await _follows(heir)


async def _follows(heir: Member) -> bool:
    """Wait until a worker has applied records of others to its copies, and lacks none; False if it does not."""
    deadline, before = time.monotonic() + FOLLOW_S_MAX, float("inf")
    while time.monotonic() < deadline:
        with suppress(*GONE):
            found = await _gauges(heir)
            if found[RESTORED] > before and not found[REMAINING]:
                return True
            before = min(before, found[RESTORED])
        await asyncio.sleep(LOOK_S)
    return False


async def _gauges(member: Member) -> dict[str, float]:
    """The sums of both over all partitions."""
    found = {RESTORED: 0.0, REMAINING: 0.0}
    for _, _, _, samples in await member.ask("metrics", {}):
        for name, _, value in samples:
            if name in found:
                found[name] += value
    return found


async def _promotes(fleet: Fleet, member: Member, heir: Member, number: signal.Signals) -> bool:
    """End one under load; whether the other then holds all, some of it from copies that it had kept."""
    await busy(fleet)
    said = len(heir.said())
    if number == signal.SIGTERM:
        await fleet.stop(member)
    elif await member.end(number) != -number:
        return False
    return await fleet.whole() and bool(promotions(heir.said()[said:]))


def promotions(said: str) -> list[int]:
    """The partitions that were taken over, by a worker's log, from copies that held something and were read on."""
    promoted_at: dict[int, int] = {}
    found: list[int] = []
    for line in _lines(said):
        event, partition = line.get("event"), line.get("partition", -1)
        if event == "standby promoted" and line["offset"] > 0:
            promoted_at[partition] = line["offset"]
            found.append(partition)
        elif event == "partition restored" and line["offset"] < promoted_at.get(partition, 0):
            found.remove(partition)  # the copy was of no use: it was read anew
            del promoted_at[partition]
    return found


def _lines(said: str) -> Iterator[dict[str, Any]]:
    for line in said.splitlines():
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


PROMOTIONS: Final[dict[str, Fault]] = {
    "fault: a standby promoted": promoted,
    "fault: a standby promoted for good": promoted_for_good,
    "fault: a standby promoted, and once more": promoted_again,
}
