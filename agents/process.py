"""A process that serves: started, watched, and stopped in time by a signal, by an error, or when its work is done."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import structlog

from agents.demo import Pipeline
from agents.engine.transport import Log
from config.logging import set_up_logging
from config.settings import Settings
from streams.events import JSONValue

STOP_S_MAX: Final = 15.0
CANCEL_S_MAX: Final = 2.0
EXIT_FAILED: Final = 1


class Site(Pipeline, Protocol):
    """What runs here: one node, or a fleet of workers below it."""

    settings: Settings

    @property
    def log(self) -> Log:
        """The log, for whoever appends to it from this process."""

    @property
    def failure(self) -> asyncio.Future[BaseException] | None:
        """Set, after `start`, once it must not go on."""

    async def start(self) -> None:
        """Returns when records flow."""

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """A control command's answer."""

    async def stop(self) -> object:
        """Finish what is in flight and close."""


Work = Callable[[Site, asyncio.Event], Awaitable[None]]


async def serve(make: Callable[[], Site], work: Work) -> int:
    """Start a site, do the work, stop it; the work's second argument is set by SIGINT and SIGTERM.

    Returns:
        0. When the site fails the process ends at once with 1, and without another write: nobody knows
        what a failed commit kept. A signal ends the start, too, however long that would wait for others.
    """
    set_up_logging()
    site = make()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    try:
        if not await _started(site, stopping):
            return 0
        assert site.failure is not None
        working: asyncio.Future[Any] = asyncio.ensure_future(work(site, stop))
        ended: asyncio.Future[Any] = site.failure
        await asyncio.wait([working, ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            structlog.get_logger("headrace").error("stopped", exc_info=ended.result())
            sys.stderr.flush()
            os._exit(EXIT_FAILED)
        if working.done():
            working.result()
        working.cancel()
    finally:
        _deadline(STOP_S_MAX)
        await site.stop()
    return 0


async def _started(site: Site, stopping: asyncio.Future[Any]) -> bool:
    """Start, and return True; False if a signal came first. Raises what the start raises."""
    starting: asyncio.Future[Any] = asyncio.ensure_future(site.start())
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        return True
    starting.cancel()
    await asyncio.wait([starting], timeout=CANCEL_S_MAX)
    return False


def _deadline(seconds: float) -> None:
    """End the process if stopping takes longer: a hung provider must not keep it."""
    timer = threading.Timer(seconds, os._exit, [EXIT_FAILED])
    timer.daemon = True
    timer.start()


def end_with_parent() -> None:
    """From now on end when standard input closes: a worker without its supervisor must not stay behind."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os._exit(EXIT_FAILED)

    threading.Thread(target=watch, daemon=True).start()
