"""Imported first by every Python process whose PYTHONPATH names this folder: SIGUSR1 makes it say what it waits for.

Each asyncio task, of every loop, with the line at which each of its coroutines stands; and each thread's stack.
"""

import faulthandler
import gc
import signal
import sys
from collections.abc import Iterator
from typing import Any


def tell(*_: object) -> None:
    """Write all of it to standard error."""
    import asyncio  # most processes are never asked

    seen = {each for each in gc.get_objects() if isinstance(each, asyncio.Task)}  # without what is frozen, as ours is
    running = asyncio._get_running_loop()
    loops = {each.get_loop() for each in seen} | ({running} if running else set())
    tasks = {each for each in seen.union(*map(asyncio.all_tasks, loops)) if not each.done()}
    lines = [f"---- {len(tasks)} tasks wait"]
    for task in sorted(tasks, key=asyncio.Task.get_name):
        lines.append(f"task {task.get_name()}:")
        lines += [f"    {place}" for place in _places(task.get_coro())]
    sys.stderr.write("\n".join([*lines, "---- threads", ""]))
    sys.stderr.flush()
    faulthandler.dump_traceback(all_threads=True)


def _places(coroutine: Any) -> Iterator[str]:  # noqa: ANN401 - coroutines, generators, futures
    """Where a coroutine stands, and what it awaits, outermost first."""
    while coroutine is not None:
        frame = next((found for name in _FRAMES if (found := getattr(coroutine, name, None)) is not None), None)
        if frame is None:
            yield f"{coroutine!r}"[:300]
            return
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"
        coroutine = next((found for name in _AWAITED if (found := getattr(coroutine, name, None)) is not None), None)


_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")

signal.signal(signal.SIGUSR1, tell)
