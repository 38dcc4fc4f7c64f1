"""Faults beside the crash points: one life of the product each, hit from outside or by what it depends on."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, web

from tests.agents.nodes import free_port
from tests.chaos.disk import disk_faults
from tests.chaos.inside import STEP_MS
from tests.chaos.life import Fault, busy, spent
from tests.chaos.session import Session, Subject

FROZEN_S: Final = {"embedded": 2.0, "kafka": 12.0}
"""On Kafka twice the session of a member."""

BLOCKED: Final = "the event loop does not turn"
BLOCKED_COMPONENT: Final = "Event loop"
STATUS_S_MAX: Final = 20.0


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
    subject.signal(signal.SIGSTOP)
    await asyncio.sleep(FROZEN_S[one.transport])
    subject.signal(signal.SIGCONT)
    await busy(one, subject)
    await subject.end(signal.SIGTERM)
    return True


async def refused(one: Session, subject: Subject) -> bool:
    """For a whole life every webhook is answered 429 or 500."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        one.calls.append((time.time(), request.headers["Idempotency-Key"], await request.read()))
        return web.Response(status=one.dice.choice((429, 500)), headers={"Retry-After": "1"})

    return await _with(one, subject, answer)


async def reset(one: Session, subject: Subject) -> bool:
    """For a whole life every webhook's connection is reset, and nothing was taken."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

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


def _mails(fault: str, answers_after_s: float = 0.0) -> Fault:
    """For a whole life the mail server does this to every mail (`tests/channels/mail_server.py`)."""

    async def befall(one: Session, subject: Subject) -> bool:
        one.mail.fault = lambda address: fault  # type: ignore[method-assign]
        one.mail.answers_after_s = answers_after_s
        try:
            return await killed(one, subject)
        finally:
            del one.mail.fault
            one.mail.answers_after_s = 0.0

    return befall


async def clock_set(one: Session, subject: Subject) -> bool:
    """For a whole life the worker's clock is set back and forth; only then may a timer be early by our clock."""
    one.work.due_s = dict.fromkeys(one.work.due_s, 0.0)
    one.casting.hush()
    since_s = time.time()
    await subject.start(inside="clock_steps")
    was_busy = await busy(one, subject)
    was_killed = await subject.end(signal.SIGKILL) == -signal.SIGKILL
    await asyncio.sleep(STEP_MS / 1000)  # until then partitions are ahead: their time never falls
    one.work.due_s = dict.fromkeys(one.work.due_s, 0.0)
    one.work.casts.skewed.append((since_s, time.time()))
    one.casting.is_hushed = False
    return was_killed and was_busy


async def blocked(one: Session, subject: Subject) -> bool:
    """Something holds the event loop: the watchdog's thread says so, then the status page too, and nothing is lost."""
    port = free_port()
    await subject.start(inside="loop_blocks", http=f"127.0.0.1:{port}")
    was_busy = await busy(one, subject)
    said = await _status_says(BLOCKED_COMPONENT, f"http://127.0.0.1:{port}/status.json")
    logged = BLOCKED in await asyncio.to_thread((one.folder / "log").read_text, "utf-8", "replace")
    return await subject.end(signal.SIGTERM) == 0 and was_busy and said and logged


async def _status_says(component: str, url: str) -> bool:
    """Whether the status names a component as stalled before long."""
    deadline = time.monotonic() + STATUS_S_MAX
    async with ClientSession(timeout=ClientTimeout(total=STATUS_S_MAX)) as client:
        while time.monotonic() < deadline:
            with suppress(OSError, ClientError, TimeoutError):
                async with client.get(url) as answer:
                    found = (await answer.json())["components"]
                if any(each["component"] == component and each["state"] == "STALL" for each in found):
                    return True
            await asyncio.sleep(0.1)
    return False


def _within(name: str) -> Fault:
    """What the producer is told ends the process by itself, at once."""

    async def befall(one: Session, subject: Subject) -> bool:
        one.mark.unlink(missing_ok=True)
        await subject.start(inside=name)
        ended_itself = await spent(one, subject)
        return await subject.end(signal.SIGKILL) == 1 and ended_itself and one.mark.exists()

    return befall


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
    "fault: webhooks are reset": reset,
    "fault: webhooks drop after taking": dropped,
    "fault: webhooks hang": hung,
    "fault: mails answer 451": _mails("end-451"),
    "fault: mails drop after taking": _mails("end-drop"),
    "fault: mails hang": _mails("", answers_after_s=60.0),
    "fault: clock set back and forth": clock_set,
    "fault: event loop blocked": blocked,
}
_KAFKA: Final[dict[str, Fault]] = {
    "fault: data folder deleted": folder_deleted,
    "fault: stale data folder back": folder_stale,
    "fault: a send fails": _within("send_fails"),
    "fault: a send is kept and not answered": _within("send_unanswered"),
    "fault: a batch is refused": _within("batch_refused"),
    "fault: a commit fails": _within("commit_fails"),
    "fault: a commit is kept and not answered": _within("commit_unanswered"),
}


def faults_of(transport: str) -> dict[str, Fault]:
    """Every fault that a transport can meet here, by name."""
    return _ANY | disk_faults(transport) | (_KAFKA if transport == "kafka" else {})
