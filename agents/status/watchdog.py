"""The watchdog: a thread that sees from outside when the event loop is blocked, and ends the process after a limit."""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Callable
from time import monotonic
from typing import Final

import structlog

from config import metrics
from streams.health import BLOCKED_S

LOOK_S: Final = 0.25
EXIT_AFTER_S: Final = 60.0
"""A loop that has not turned for so long is not coming back: heartbeats of another thread would hide it for ever."""

EXIT_BLOCKED: Final = 70
FRAMES_MAX: Final = 8
_log: Final = structlog.get_logger("headrace")


def _exit(code: int) -> None:
    sys.stderr.flush()
    os._exit(code)


class Watchdog:
    """The loop beats, the thread looks. `start` is called on the loop, `stop` anywhere."""

    def __init__(self, exit_after_s: float = EXIT_AFTER_S, end: Callable[[int], None] = _exit) -> None:
        """`end` ends the process with an exit code."""
        self._exit_after_s = exit_after_s
        self._end = end
        self._beat_s = monotonic()
        self._stopped = threading.Event()
        self._is_blocked = False
        self._loop_thread = 0
        self._beating: asyncio.TimerHandle | None = None

    @property
    def blocked_s(self) -> float:
        """How long the loop has not turned, beyond its beat."""
        return max(0.0, monotonic() - self._beat_s - LOOK_S)

    def start(self) -> None:
        """Beat on this loop, and watch it."""
        self._loop_thread = threading.get_ident()
        metrics.LOOP_BLOCKED_SECONDS.set(0)
        self._beat()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        if self._beating is not None:
            self._beating.cancel()

    def _beat(self) -> None:
        self._beat_s = monotonic()
        self._beating = asyncio.get_running_loop().call_later(LOOK_S, self._beat)

    def _watch(self) -> None:
        while not self._stopped.wait(LOOK_S):
            blocked_s = self.blocked_s
            metrics.LOOP_BLOCKED_SECONDS.set(blocked_s)
            if blocked_s < BLOCKED_S:
                self._is_blocked = False
                continue
            if not self._is_blocked:
                self._is_blocked = True
                metrics.WATCHDOG_STALLS.labels("loop").inc()
                _log.error("the event loop does not turn", seconds=round(blocked_s, 1), where=self._where())
            if blocked_s >= self._exit_after_s:
                _log.error("the event loop is blocked for good; ending", seconds=round(blocked_s, 1))
                self._end(EXIT_BLOCKED)
                return

    def _where(self) -> list[str]:
        """The innermost places in code that the loop's thread is at: files and lines, no values."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001  # the only way to see another thread
        if frame is None:
            return []
        return [f"{each.filename}:{each.lineno} {each.name}" for each in traceback.extract_stack(frame)[-FRAMES_MAX:]]
