"""Lives that are fed for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from tests.chaos.session import GONE, PART_S, Session, Subject

BUSY_S: Final = (0.2, 1.2)
READY_S: Final = 30.0
SPENT_S: Final = 20.0

Fault = Callable[[Session, Subject], Awaitable[bool]]
"""One life of the product; True if it befell it."""


async def busy(one: Session, subject: Subject) -> bool:
    """Feed a life for a moment; False if it ended by itself."""
    deadline, until = time.monotonic() + READY_S, 0.0
    while not subject.has_ended and time.monotonic() < deadline:
        try:
            await one.feed()
            await one.casting.go_on()
        except GONE:
            await asyncio.sleep(0.02)
            continue
        until = until or time.monotonic() + one.dice.uniform(*BUSY_S)
        if time.monotonic() > until:
            return True
        await asyncio.sleep(PART_S)
    return False


async def spent(one: Session, subject: Subject, wait_s: float = SPENT_S) -> bool:
    """Feed a life until it ends by itself; False if it does not."""
    deadline = time.monotonic() + wait_s
    while not subject.has_ended and time.monotonic() < deadline:
        try:
            await one.feed()
            await one.casting.go_on()
        except GONE:
            await asyncio.sleep(0.02)
            continue
        await asyncio.sleep(PART_S)
    return subject.has_ended
