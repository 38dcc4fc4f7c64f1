"""Pumps: one per channel takes pending dispatches as its provider has room, and carries each to its outcome."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from agents.engine.pace import Pace
from channels.channel import Limits
from config import metrics
from streams.errors import Revoked
from tables.dispatches import LANES_MAX, Dispatch, Dispatches

TAKEN_MAX: Final = 64
SILENT_PER_HOST: Final = 1


class Pump:
    """The attempts of one channel, of all open partitions. What waits stays in the tables; memory is bounded.

    A host that gives no answer gets one attempt at a time until it does, so that hung hosts leave room.
    """

    def __init__(
        self,
        channel: str,
        limits: Limits,
        carry: Callable[[int, Dispatch], Awaitable[bool]],
        pace: Pace,
        fail: Callable[[BaseException], None],
    ) -> None:
        """`carry` takes a partition's dispatch to its outcome, and says whether the host was silent."""
        self._channel = channel
        self._limits = limits
        self._carry = carry
        self._in_flight = metrics.IN_FLIGHT.labels(channel)
        self._pace = pace
        self._fail = fail
        self._tables: dict[int, Dispatches] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}
        metrics.IN_FLIGHT_MAX.labels(channel).set(limits.in_flight)
        self._lanes: Counter[str] = Counter()
        self._silent: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._resting = False
        self._reserved = 0
        self._pumping: asyncio.Task[None] | None = None

    def join(self, partition: int, table: Dispatches) -> None:
        """Take dispatches of this partition too."""
        self._tables[partition] = table
        if self._pumping is None:
            self._pumping = asyncio.create_task(self._run(), name=f"pump[{self._channel}]")
        self.wake()

    async def leave(self, partition: int, patience_s: float) -> None:
        """Take no more of a partition; attempts that do not end in time are cut off, for `settle` to judge."""
        self._tables.pop(partition, None)
        await self._end([task for task, at in self._tasks.items() if at == partition], patience_s)

    async def stop(self, patience_s: float) -> None:
        """The same for all partitions at once."""
        self._tables.clear()
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)
            self._pumping = None
        await self._end(list(self._tasks), patience_s)

    async def _end(self, tasks: list[asyncio.Task[None]], patience_s: float) -> None:
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=patience_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def rest(self, patience_s: float) -> None:
        """Start nothing, and wait for what is under way, at most so long; it is not cut off."""
        self._resting = True
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=patience_s)

    def go_on(self) -> None:
        """Start again what there is room for."""
        self._resting = False
        self.wake()

    @property
    def silent(self) -> int:
        """How many hosts gave no answer at their last attempt."""
        return len(self._silent)

    def wake(self) -> None:
        """Look again: something has become pending."""
        self._wake.set()

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._fill()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise

    async def _fill(self) -> None:
        """Start what there is room for, a few of each partition in turn."""
        started = True
        while started:
            started = False
            for partition, table in list(self._tables.items()):
                free = self._limits.in_flight - len(self._tasks) - self._reserved
                if free <= 0 or self._resting:
                    return
                if partition not in self._tables:
                    continue
                for dispatch in table.take(self._channel, self._room, min(free, TAKEN_MAX)):
                    self._start(partition, dispatch)
                    started = True
                await self._pace.breathe()

    def reserve(self, dispatch: Dispatch) -> bool:
        """Keep a place for a dispatch that is not recorded yet, if one is free and nothing of its host waits."""
        if self._resting or len(self._tasks) + self._reserved >= self._limits.in_flight:
            return False
        if self._room(dispatch.lane) <= 0:
            return False
        self._reserved += 1
        self._lanes[dispatch.lane] += 1
        return True

    def use(self, partition: int, dispatch: Dispatch) -> None:
        """Carry a dispatch whose place was kept, and which is recorded as attempting now."""
        self._reserved -= 1
        self._begin(partition, dispatch)

    def give_back(self, dispatch: Dispatch) -> None:
        """The place is not needed after all."""
        self._reserved -= 1
        self._leave(dispatch.lane)

    def _room(self, lane: str) -> int:
        allowed = SILENT_PER_HOST if lane in self._silent else self._limits.per_host
        return allowed - self._lanes[lane]

    def _start(self, partition: int, dispatch: Dispatch) -> None:
        self._lanes[dispatch.lane] += 1
        self._begin(partition, dispatch)

    def _begin(self, partition: int, dispatch: Dispatch) -> None:
        task = asyncio.create_task(self._one(partition, dispatch))
        self._tasks[task] = partition
        task.add_done_callback(self._ended)
        self._in_flight.set(len(self._tasks))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        self._in_flight.set(len(self._tasks))
        self.wake()

    async def _one(self, partition: int, dispatch: Dispatch) -> None:
        lane = dispatch.lane
        try:
            self._heard(lane, is_silent=await self._carry(partition, dispatch))
        except Revoked:
            return  # the partition's next owner settles what was under way
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._leave(lane)

    def _leave(self, lane: str) -> None:
        self._lanes[lane] -= 1
        if self._lanes[lane] <= 0:
            del self._lanes[lane]

    def _heard(self, lane: str, *, is_silent: bool) -> None:
        if not is_silent:
            self._silent.pop(lane, None)
        elif self._limits.per_host < self._limits.in_flight:
            self._silent[lane] = None
            if len(self._silent) > LANES_MAX:
                del self._silent[next(iter(self._silent))]
