"""A loop whose clock is the processor time of its own thread: what it measures does not depend on the neighbours.

Where the loop would wait, its clock jumps to the next timer. Work in threads is done in place, costs the loop's
clock nothing, and is over after the time that a disk of its own would take. What is left out: other threads on the
same cores, compaction among them, and a disk that is slow because much is written.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

THREAD_S: Final = 0.003
"""How long anything in a thread takes, above all an fsync: what a disk with nothing else to do was seen to need."""


class _Selector(selectors.DefaultSelector):
    """Never waits: tells the loop how long it would have."""

    def __init__(self, passed: Callable[[float | None], None]) -> None:
        super().__init__()
        self._passed = passed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and (timeout is None or timeout > 0):
            self._passed(timeout)
        return found


class OwnTimeLoop(asyncio.SelectorEventLoop):
    """Asyncio's own loop on that clock; its epoch is when it was made."""

    def __init__(self) -> None:
        self._skipped_s = -time.thread_time()
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        """Seconds that the loop's thread has computed or would have waited."""
        return time.thread_time() + self._skipped_s

    def _pass(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            raise RuntimeError("nothing is left to run, and nothing can come from outside")
        self._skipped_s += timeout_s

    def run_in_executor(self, executor: object, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Done at once, told when a thread would have been done."""
        told: asyncio.Future[Any] = self.create_future()
        began = time.thread_time()
        result, error = None, None
        try:
            result = func(*args)
        except Exception as raised:
            if isinstance(raised, StopIteration):
                raise
            error = raised
        self._skipped_s -= time.thread_time() - began

        def tell() -> None:
            if not told.done():
                told.set_exception(error) if error is not None else told.set_result(result)

        self.call_later(THREAD_S, tell)
        return told

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """A callback that fails ends the run: a measurement must not go on without what failed."""
        self.stop()
        super().call_exception_handler(dict(context))


class OwnClock:
    """The machine's clock on that loop."""

    def __init__(self, loop: OwnTimeLoop, epoch_ms: int) -> None:
        self._loop = loop
        self._epoch_ms = epoch_ms

    def now_ms(self) -> int:
        """Milliseconds, as the loop's own time passes."""
        return self._epoch_ms + int(self._loop.time() * 1000)
