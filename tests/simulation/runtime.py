"""Stand-ins for what a worker shares with its machine: Faust, the folder's lock, sockets, the stopwatch.

The agents, the engine, the slices, the lanes and Faust's place in them (the loop that takes slices) are the
product's own; Faust itself, which would only hand them through, is left out for speed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from agents.engine.driver import SliceConsumer


class FaustStandIn:
    """What the engine asks of a Faust app: agents by their topics, and a consumer that takes slices for them."""

    def __init__(self, on_take: Callable[[Any, Any], None]) -> None:
        self.headrace: Any = None
        self._on_take = on_take
        self.consumer_generation_id = 1
        self.consumer: Any = SimpleNamespace(_thread=SimpleNamespace(publish=self._publish))
        self.should_stop = False
        self.flow_active = True
        self.owns: set[int] = set()
        self.crash_reason: BaseException | None = None
        self._crashed = asyncio.Event()
        self._queues: dict[str, list[asyncio.Queue[Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._runs: list[tuple[Callable[[Any], Any], asyncio.Queue[Any]]] = []
        self._listed: tuple[set[TP], list[Any]] = (set(), [])
        self.app = self

    def topic(self, *names: str, schema: object) -> tuple[str, ...]:
        return names

    def agent(self, channel: tuple[str, ...], *, name: str) -> Callable[[Callable[[Any], Any]], None]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for topic in channel:
            self._queues.setdefault(topic, []).append(queue)

        def register(run: Callable[[Any], Any]) -> None:
            self._runs.append((run, queue))

        return register

    async def start(self) -> None:
        for run, queue in self._runs:
            self._tasks.append(asyncio.create_task(run(_Stream(queue))))
        self._tasks.append(asyncio.create_task(self._drain()))
        if not self.headrace.settings.on_kafka:
            self.headrace.hold(set(range(self.headrace.settings.partitions)))

    async def stop(self) -> None:
        self.should_stop = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _drain(self) -> None:
        """The product's own loop; where it ends in an error, so does the worker."""
        try:
            await SliceConsumer._drain_messages(self, self)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.headrace.fail(error)
            raise

    # ---- what the product's own loop over the partitions asks of its consumer

    @property
    def _slices(self) -> Any:
        return self.headrace.slices

    @property
    def _log(self) -> Any:
        return self.headrace.transport

    def _places(self) -> Any:
        return SliceConsumer._places(self)  # type: ignore[arg-type]

    def _get_active_partitions(self) -> set[TP]:
        return {TP(name, at) for name in self._queues for at in self.headrace.held}

    async def callback(self, message: Any) -> None:
        self._on_take(self._slices, message.value)
        for queue in self._queues[message.topic]:
            queue.put_nowait(message.value)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    async def _publish(self, offsets: object) -> bool:
        return True


class _Stream:
    """Slices as an agent of Faust's iterates over them."""

    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self._queue = queue

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> Any:
        return await self._queue.get()


class Nowhere:
    """A folder's lock, a control socket, an HTTP server: nothing of it is there."""

    def __init__(self, *args: object) -> None:
        self.ready = False

    async def start(self, *args: object) -> None:
        return

    async def stop(self, *args: object) -> None:
        return

    def close(self) -> None:
        return


class Unwatched:
    """No watchdog: its thread would measure virtual time, and end the process that simulates."""

    def start(self) -> None:
        return

    def stop(self) -> None:
        return


@contextmanager
def replaced(pairs: list[tuple[object, str, object]]) -> Iterator[None]:
    """Put other things in the places of attributes, and the old ones back at the end."""
    old = [(owner, name, getattr(owner, name)) for owner, name, _ in pairs]
    try:
        for owner, name, new in pairs:
            setattr(owner, name, new)
        yield
    finally:
        for owner, name, value in reversed(old):
            setattr(owner, name, value)


def stopwatches(read: Callable[[], float]) -> list[tuple[object, str, object]]:
    """The places where modules of ours took `perf_counter` or `monotonic` from `time`, all to be replaced."""
    return [
        (module, name, read)
        for key, module in sorted(sys.modules.items())
        if key.split(".")[0] in ("agents", "channels", "tables")
        for name in ("perf_counter", "monotonic")
        if getattr(module, name, None) is getattr(time, name)
    ]
