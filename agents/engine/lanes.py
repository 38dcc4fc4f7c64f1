"""Lanes: one ordered task per partition, so that a slow partition holds up no other."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from agents.engine.pace import Pace
from agents.engine.slices import Slice
from streams.errors import Revoked
from streams.records import Place


class Lanes:
    """Hands slices to a handler, in order within a partition; its error goes to `on_failure`, once."""

    def __init__(
        self, handle: Callable[[Slice], Awaitable[None]], on_failure: Callable[[BaseException], None], pace: Pace
    ) -> None:
        """Make lanes as partitions appear; all lanes of a loop share its pace."""
        self._pace = pace
        self._handle = handle
        self._on_failure = on_failure
        self._queues: dict[Place, asyncio.Queue[Slice]] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._given = 0

    def give(self, piece: Slice) -> None:
        """Queue a slice; the number of slices in flight bounds the queue."""
        place = (piece.topic, piece.partition)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = asyncio.Queue()
            name = f"{piece.topic}[{piece.partition}]"
            self._tasks[place] = asyncio.create_task(self._run(queue), name=name)
        queue.put_nowait(piece)
        self._given += 1

    async def _run(self, queue: asyncio.Queue[Slice]) -> None:
        try:
            while True:
                piece = await queue.get()
                await self._pace.breathe()
                with suppress(Revoked):  # whoever has the partition now handles the slice again
                    await self._handle(piece)
                self._given -= 1
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._on_failure(error)
            raise

    @property
    def idle(self) -> bool:
        """Whether every slice given has been handled."""
        return not self._given

    async def close(self) -> None:
        """Stop the tasks; what is queued is read again next time."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        self._queues.clear()
        self._given = 0
