"""Faults beside the crash points: one life of the product each, hit from outside or by what it depends on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from tests.chaos.session import GONE, PART_S, Session, Subject

BUSY_S: Final = (0.2, 1.5)
FROZEN_S: Final = {"embedded": 2.0, "kafka": 12.0}
"""On Kafka twice the session of a member."""

READY_S: Final = 30.0

Fault = Callable[[Session, Subject], Awaitable[bool]]


async def busy(one: Session, subject: Subject) -> bool:
    """Feed a life for a moment; False if it ended by itself."""
    deadline, until = time.monotonic() + READY_S, 0.0
    while not subject.has_ended and time.monotonic() < deadline:
        try:
            await one.feed()
        except GONE:
            await asyncio.sleep(0.02)
            continue
        until = until or time.monotonic() + one.dice.uniform(*BUSY_S)
        if time.monotonic() > until:
            return True
        await asyncio.sleep(PART_S)
    return False


async def killed(one: Session, subject: Subject) -> bool:
    """Kill -9 at a random moment."""
    await subject.start()
    was_busy = await busy(one, subject)
    return await subject.end(signal.SIGKILL) == -signal.SIGKILL and was_busy


async def stopped(one: Session, subject: Subject) -> bool:
    """SIGTERM at a random moment ends it in good order."""
    await subject.start()
    was_busy = await busy(one, subject)
    return await subject.end(signal.SIGTERM) == 0 and was_busy


async def frozen(one: Session, subject: Subject) -> bool:
    """SIGSTOP under load, SIGCONT later, then more load; it may end by itself, as one that lost its place."""
    await subject.start()
    was_busy = await busy(one, subject)
    if not was_busy:
        await subject.end(signal.SIGKILL)
        return False
    os.kill(subject.pid, signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S[one.transport])
    os.kill(subject.pid, signal.SIGCONT)
    await busy(one, subject)
    await subject.end(signal.SIGTERM)
    return True


async def refused(one: Session, subject: Subject) -> bool:
    """For a whole life every webhook is answered 429 or 500."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        one.calls.append((time.time(), request.headers["Idempotency-Key"], await request.read()))
        return web.Response(status=one.dice.choice((429, 500)), headers={"Retry-After": "1"})

    return await _with(one, subject, answer)


async def dropped(one: Session, subject: Subject) -> bool:
    """For a whole life every webhook is taken, and its connection then reset."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        one.calls.append((time.time(), request.headers["Idempotency-Key"], await request.read()))
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    return await _with(one, subject, answer)


async def hung(one: Session, subject: Subject) -> bool:
    """For a whole life no webhook is answered; the worker is killed with all of them open."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        one.calls.append((time.time(), request.headers["Idempotency-Key"], await request.read()))
        await asyncio.sleep(60)
        return web.Response()

    return await _with(one, subject, answer)


async def _with(
    one: Session, subject: Subject, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
) -> bool:
    usual, one.hooks.answer = one.hooks.answer, answer
    try:
        return await killed(one, subject)
    finally:
        one.hooks.answer = usual


async def folder_deleted(one: Session, subject: Subject) -> bool:
    """Kill -9, and the data folder is gone: the changelog brings everything back."""
    done = await killed(one, subject)
    await asyncio.to_thread(shutil.rmtree, one.data)
    return done


async def folder_stale(one: Session, subject: Subject) -> bool:
    """An older copy of the data folder comes back after others have gone on."""
    first = await stopped(one, subject)
    aside = one.folder / "aside"
    await asyncio.to_thread(shutil.copytree, one.data, aside, ignore=shutil.ignore_patterns("*.sock"))
    second = await killed(one, subject)
    await asyncio.to_thread(shutil.rmtree, one.data)
    await asyncio.to_thread(aside.rename, one.data)
    return first and second


_ANY: Final[dict[str, Fault]] = {
    "fault: kill -9 at random": killed,
    "fault: SIGTERM": stopped,
    "fault: frozen and woken": frozen,
    "fault: webhooks answer 429, 500": refused,
    "fault: webhooks drop after taking": dropped,
    "fault: webhooks hang": hung,
}
_KAFKA: Final[dict[str, Fault]] = {
    "fault: data folder deleted": folder_deleted,
    "fault: stale data folder back": folder_stale,
}


def faults_of(transport: str) -> dict[str, Fault]:
    """Every fault that a transport can meet, by name."""
    return _ANY | (_KAFKA if transport == "kafka" else {})
