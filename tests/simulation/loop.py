"""A loop whose time is virtual: nothing sleeps, and one seed decides what runs when, on several processes at once.

A "process" is everything that descends from a task started in its context. It can be killed, which drops all
that it would ever run, or frozen, which keeps it for later; other processes on the same loop notice nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from hashlib import blake2b
from typing import Any

THREAD_S_MAX = 0.004
"""A job in a thread begins and ends within so long of being asked for, unless the seed stalls the disk."""

_process: ContextVar[Process | None] = ContextVar("process", default=None)


class Killed(BaseException):
    """A process dies in the middle of a step; nothing that it does while this passes through it counts."""


class Stuck(Exception):
    """Nothing can run any more: every task waits for something that no timer and no other task will bring."""


class Process:
    """One simulated worker process; `folder`, `disk` and the like are kept with whoever made it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.died: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[events.Handle] = []
        self.context: Context = copy_context()
        self.context.run(_process.set, self)
        self.dies_in: dict[str, int] = {}

    @staticmethod
    def current() -> Process | None:
        """The process whose code is running; None for the world outside."""
        return _process.get()

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something as part of this process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    def kill(self) -> None:
        """Nothing of it runs any more."""
        self.alive = False
        if not self.died.done():
            self.died.set_result(None)

    def step(self, kind: str) -> None:
        """A step that a seed may have chosen to die at: counts, and raises Killed at the chosen one."""
        left = self.dies_in.get(kind)
        if left is not None:
            self.dies_in[kind] = left - 1
            if left <= 1 and self.alive:
                del self.dies_in[kind]
                self.kill()
                raise Killed(kind)


class _Future(asyncio.Future[Any]):
    """A future whose place in a set depends on its number, never on its address."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """A task, likewise."""

    def __init__(self, number: int, *args: Any, **kwargs: Any) -> None:
        self._number = number
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order of their time; those of one moment in order, or shuffled by the seed."""

    def __init__(self, dice: random.Random, *, shuffles: bool, tells: Callable[[str], None] | None = None) -> None:
        """`tells` hears every traced event in words."""
        super().__init__()
        self.dice = dice
        self.steps = 0
        self.stalled_until = 0.0
        self.deadline = float("inf")
        self.unexpected: list[str] = []
        self._tells = tells
        self._shuffles = shuffles
        self._now = 0.0
        self._numbers = 0
        self._digest = blake2b(digest_size=8)
        self._processes: list[Process] = []
        self.set_exception_handler(self._on_error)

    # ---- time

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def stopwatch(self) -> float:
        """What `perf_counter` reads: looking at it costs a little time, and now and then the machine is busy."""
        self._now += self.dice.random() * 0.0002 if self.dice.random() < 0.97 else 0.003
        return self._now

    # ---- what was done

    def trace(self, kind: str, *facts: object) -> None:
        """Note an event; all of them together are the run's digest."""
        process = Process.current()
        line = f"{self._now:.6f} {process.name if process else '-'} {kind} {' '.join(map(str, facts))}"
        self._digest.update(f"{self.steps} {line}\n".encode())
        if self._tells is not None:
            self._tells(line)

    @property
    def digest(self) -> str:
        """What stands for everything that was done so far, in its order."""
        return self._digest.hexdigest()

    # ---- asyncio's own seams

    def create_future(self) -> asyncio.Future[Any]:
        self._numbers += 1
        return _Future(self._numbers, self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        self._numbers += 1
        task = _Task(self._numbers, coro, loop=self, name=name or f"task-{self._numbers}", context=context)
        process = context.get(_process) if context is not None else _process.get()
        if process is not None:
            process.tasks.append(task)
            if len(process.tasks) > 512:  # what has ended need not be kept
                process.tasks = [each for each in process.tasks if not each.done()]
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """A thread that takes a while to begin, does its work in no time, and takes a while to tell."""
        told = self.create_future()
        begin = self.dice.random() * THREAD_S_MAX + max(0.0, self.stalled_until - self._now)

        def tell(result: Any, error: BaseException | None) -> None:
            if not told.done():
                told.set_exception(error) if error is not None else told.set_result(result)

        def work() -> None:
            result, error = None, None
            try:
                result = func(*args)
            except Killed:
                return
            except Exception as raised:
                if isinstance(raised, StopIteration):
                    raise
                error = raised
            self.call_later(self.dice.random() * THREAD_S_MAX, tell, result, error)

        self.call_later(begin, work)
        return told

    def _check_closed(self) -> None:
        """Never complain: what is collected after the run may still want to cancel something."""

    def _write_to_self(self) -> None:
        return

    def _process_events(self, event_list: Any) -> None:
        return

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        process = Process.current()
        if process is not None and not process.alive:
            return
        self.unexpected.append(f"{context.get('message')}: {error!r}")

    def _run_once(self) -> None:
        """One turn: what is due, in order, unless its process is dead or frozen."""
        ready, scheduled = self._ready, self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stuck("nothing is left to run")
            self._now = max(self._now, scheduled[0]._when)
            if self._now > self.deadline:
                raise Stuck(f"not over after {self.deadline:.0f} virtual seconds")
        while scheduled and scheduled[0]._when <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        turn = list(ready)
        ready.clear()
        if self._shuffles and len(turn) > 1:
            self.dice.shuffle(turn)
        for handle in turn:
            if handle._cancelled:
                continue
            process = handle._context.get(_process)
            if (process is not None and not process.alive) or (process is not None and process.frozen):
                process.held.append(handle)
            else:
                self.steps += 1
                handle._run()

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        return

    # ---- processes

    def new_process(self, name: str) -> Process:
        """A process without work."""
        process = Process(name)
        self._processes.append(process)
        return process

    def thaw(self, process: Process) -> None:
        """Let a frozen process go on with what it held."""
        process.frozen = False
        held, process.held = process.held, []
        self._ready.extend(held)  # type: ignore[attr-defined]

    def bury(self) -> None:
        """End for good what was dropped, so that Python does not complain when it is collected."""
        for process in self._processes:
            process.alive = False
            process.held.clear()
            for task in process.tasks:
                if task.done():
                    continue
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError, Killed):  # one that waits while it is closed
                    task.get_coro().close()
