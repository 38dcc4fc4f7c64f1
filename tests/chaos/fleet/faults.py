"""What happens to a fleet of workers.

Each fault says whether it took place; what it broke, the verifier says.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from agents.engine.kafka.clients import RECORD_BYTES_MAX
from tests.chaos.fleet.members import Member
from tests.chaos.fleet.session import BASE, GUEST, SESSION_S, Fleet
from tests.chaos.fleet.steps import CRASHES, FREEZES, GIVEN_UP, steps
from tests.chaos.session import GONE

BUSY_S: Final = (0.2, 2.0)
CHANGE_S: Final = 5.0
CHANGES: Final = 2
FROZEN_S: Final = 2 * SESSION_S
MARK_S_MAX: Final = 30.0
SOON_S: Final = 12.0
PAUSED_S: Final = 3.0
REFUSED_S: Final = 3.0
SMALL_BYTES: Final = 150
ADMIN_S_MAX: Final = 20.0

Fault = Callable[[Fleet], Awaitable[bool]]


def one_of(fleet: Fleet) -> Member:
    """One of the two, by chance."""
    return fleet.members[fleet.dice.choice(BASE)]


async def busy(fleet: Fleet) -> None:
    """Let the load go on for a moment."""
    await asyncio.sleep(fleet.dice.uniform(*BUSY_S))


async def killed(fleet: Fleet) -> bool:
    """Kill -9 of one, which is back before its session has ended, or after the other has taken over."""
    member = one_of(fleet)
    await busy(fleet)
    has_hit = await member.end(signal.SIGKILL) == -signal.SIGKILL
    if fleet.dice.random() < 0.5:
        await asyncio.sleep(fleet.dice.uniform(0, 1))
    else:
        await fleet.whole()
    await member.start()
    if fleet.dice.random() < 0.3:  # the next fault meets the rebalance
        return has_hit
    return await fleet.whole() and has_hit


async def joining(fleet: Fleet) -> bool:
    """A third joins, and leaves 5 s later; so does one of the two, and comes back."""
    guest, member = fleet.members[GUEST], one_of(fleet)
    for _ in range(CHANGES):
        await guest.start()
        await asyncio.sleep(CHANGE_S)
        await fleet.stop(guest)
        await asyncio.sleep(CHANGE_S)
    await fleet.stop(member)
    await asyncio.sleep(CHANGE_S)
    await member.start()
    return await fleet.whole()


async def _wake(fleet: Fleet, member: Member, frozen_s: float) -> bool:
    """Wait until the other holds all, settle what it holds as an operator would, and wake the first."""
    began = time.monotonic()
    taken_over = await fleet.whole()
    await asyncio.sleep(max(0.0, began + frozen_s - time.monotonic()))
    await fleet.settle_held()
    await asyncio.sleep(1.0)  # what was released is sent before the other wakes
    member.signal(signal.SIGCONT)
    return await fleet.whole() and taken_over


async def frozen(fleet: Fleet) -> bool:
    """SIGSTOP at a random moment, for twice the session, and SIGCONT."""
    member = one_of(fleet)
    await fleet.whole()
    await busy(fleet)
    member.signal(signal.SIGSTOP)
    return await _wake(fleet, member, FROZEN_S)


async def at_step(fleet: Fleet, name: str) -> bool:
    """The same at a call of a step of its work, where it has told the broker or its own disk a part."""
    member, guest = one_of(fleet), fleet.members[GUEST]
    if not await _freeze_at(fleet, member, name):
        return False
    woken = await _wake(fleet, member, FROZEN_S)
    if guest.lives:
        await fleet.stop(guest)
        await fleet.whole()
    return woken


async def _freeze_at(fleet: Fleet, member: Member, name: str) -> bool:
    """Start a worker anew, and wait until it has come to the step and stands still; a third comes if it does not."""
    await fleet.stop(member)
    await fleet.whole()
    await member.start(name, fleet.dice.randint(1, steps()[name].calls_max), freezes=True)
    if not await _marked(member, SOON_S):  # one that a rebalance brings about
        await fleet.members[GUEST].start()
    member.frozen = await _marked(member)
    return member.frozen


async def frozen_at_a_step(fleet: Fleet) -> bool:
    """At a random one of the steps."""
    return await at_step(fleet, fleet.dice.choice([*sorted(FREEZES), GIVEN_UP]))


async def paused_while_frozen(fleet: Fleet) -> bool:
    """All is paused while one stands still before an attempt: when it wakes, nothing goes out any more."""
    member, guest = one_of(fleet), fleet.members[GUEST]
    if not await _freeze_at(fleet, member, "confirming"):
        return False
    fleet.is_hushed = True
    fleet.casting.hush()  # one whose moment comes while all is paused is passed over
    try:
        taken_over = await fleet.whole() and await fleet.still()
        await fleet.settle_held()
        await fleet.still()
        await fleet.pause(paused=True)
        before = len(fleet.calls), len(fleet.mail.taken)
        member.signal(signal.SIGCONT)
        await asyncio.sleep(PAUSED_S)
        is_whole = await fleet.whole()
        after = len(fleet.calls), len(fleet.mail.taken)
        if after != before:
            fleet.faults.append(f"paused, and then {before} calls and mails became {after}: a woken worker sent them")
        await fleet.pause(paused=False)
    finally:
        fleet.is_hushed = fleet.casting.is_hushed = False
    if guest.lives:
        await fleet.stop(guest)
    return taken_over and is_whole and await fleet.whole()


async def _marked(member: Member, seconds: float = MARK_S_MAX) -> bool:
    deadline = time.monotonic() + seconds
    while not member.mark.exists() and member.lives and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return member.mark.exists()


async def crashed_in_rebalance(fleet: Fleet) -> bool:
    """One ends by kill -9 at a step of the rebalance that a third brings about, by coming and going."""
    member, guest = one_of(fleet), fleet.members[GUEST]
    await fleet.stop(member)
    name = fleet.dice.choice(sorted(CRASHES))
    await member.start(name, fleet.dice.randint(1, 2))
    await guest.start()
    if not await _marked(member):
        await fleet.stop(guest)
        await _marked(member)
    was_hit = member.mark.exists()
    if guest.lives:
        await fleet.stop(guest)
    if not was_hit and member.lives:  # few partitions change hands: not every step comes so often
        await member.end(signal.SIGKILL)
    if not member.lives:
        await member.start()
    return await fleet.whole() and was_hit


async def folder_deleted(fleet: Fleet) -> bool:
    """Kill -9, and the data folder is gone, with or without a takeover meanwhile."""
    member = one_of(fleet)
    await busy(fleet)
    has_hit = await member.end(signal.SIGKILL) == -signal.SIGKILL
    await asyncio.to_thread(shutil.rmtree, member.data)
    if fleet.dice.random() < 0.5:
        await fleet.whole()
    await member.start()
    return await fleet.whole() and has_hit


async def folder_stale(fleet: Fleet) -> bool:
    """A worker gets an old copy of its folder back, after its partitions moved to the other and went on there."""
    member = one_of(fleet)
    await fleet.whole()
    await fleet.stop(member)
    aside = member.data.with_suffix(".aside")
    await asyncio.to_thread(shutil.copytree, member.data, aside, ignore=shutil.ignore_patterns("*.sock"))
    await fleet.whole()
    await member.start()
    await fleet.whole()
    await busy(fleet)
    has_hit = await member.end(signal.SIGKILL) == -signal.SIGKILL
    await fleet.whole()
    await busy(fleet)
    await asyncio.to_thread(shutil.rmtree, member.data)
    await asyncio.to_thread(aside.rename, member.data)
    await member.start()
    return await fleet.whole() and has_hit


def let_in(fleet: Fleet, topic: str, size: int) -> None:
    """Set the largest batch that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, f"{fleet.app}.{topic}", incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": fleet.broker})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(timeout=ADMIN_S_MAX)


async def refused(fleet: Fleet) -> bool:
    """For a while a topic takes none of our batches: whoever is refused ends, and is started again."""
    topic = fleet.dice.choice(("changelog", "currents", "mailbox", "sends.webhook"))
    before = len(fleet.ends)
    await asyncio.to_thread(let_in, fleet, topic, SMALL_BYTES)
    await asyncio.sleep(REFUSED_S)
    has_hit = len(fleet.ends) > before
    await asyncio.to_thread(let_in, fleet, topic, RECORD_BYTES_MAX)
    return await fleet.whole() and has_hit


async def redefined(fleet: Fleet) -> bool:
    """A definition changes over all users while a third comes, one of the two is killed, and the third goes."""
    guest, member = fleet.members[GUEST], one_of(fleet)
    await fleet.whole()
    fleet.work.extra_at += 1
    fleet.write_workspace()
    with suppress(*GONE):
        await fleet.apply()
    await guest.start()
    await busy(fleet)
    has_hit = await member.end(signal.SIGKILL) == -signal.SIGKILL
    await member.start()
    with suppress(*GONE):  # nothing changes where it is in force
        await fleet.apply()
    await fleet.whole()
    await fleet.stop(guest)
    return await fleet.whole() and has_hit


FAULTS: Final[dict[str, Fault]] = {
    "fault: one of two killed -9": killed,
    "fault: joining and leaving every 5 s": joining,
    "fault: frozen for two sessions": frozen,
    "fault: frozen at a step": frozen_at_a_step,
    "fault: all paused while one is frozen": paused_while_frozen,
    "fault: killed in a rebalance": crashed_in_rebalance,
    "fault: data folder deleted, of one of two": folder_deleted,
    "fault: stale data folder back, after a move": folder_stale,
    "fault: batches refused": refused,
    "fault: definitions changed in a rebalance": redefined,
}
