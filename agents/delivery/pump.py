"""Pumps: one per channel takes pending dispatches as its provider has room, and carries each to its outcome."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Final, NamedTuple

from agents.delivery.gate import bulk_max
from agents.engine.pace import Pace
from channels.channel import Limits
from config import metrics
from streams.errors import Revoked
from streams.sends import LANES, Lane
from tables.dispatch_lanes import host_of, lane_of, named
from tables.dispatches import LANES_MAX, Dispatch, Dispatches

TAKEN_MAX: Final = 64
SILENT_PER_HOST: Final = 1
BYTES_MAX: Final = 64 * 1024 * 1024
"""Of rendered requests between attempt and outcome, and those of one turn more: no more of them are begun."""


class _Place(NamedTuple):
    """What a dispatch takes of the channel while it is open."""

    kind: Lane
    lane: str
    size_bytes: int


class Pump:
    """The attempts of one channel, of all open partitions. What waits stays in the tables; memory is bounded.

    Transactional sends are taken first, and of all places, the channel's and each host's, and of the memory, a quarter
    is kept for them (`bulk_max`). A host that gives no answer gets one attempt of each lane at a time until it does,
    so that hung hosts leave room.
    """

    def __init__(
        self,
        channel: str,
        limits: Limits,
        record: Callable[[int, list[Dispatch]], Awaitable[None]],
        carry: Callable[[int, Dispatch], Awaitable[bool]],
        pace: Pace,
        fail: Callable[[BaseException], None],
    ) -> None:
        """`record` marks a partition's dispatches as being attempted, all at once.

        `carry` takes one of them to its outcome, and says whether the host was silent.
        """
        self._channel = channel
        self._limits = limits
        self._record = record
        self._carry = carry
        self._pace = pace
        self._fail = fail
        self._tables: dict[int, Dispatches] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}
        metrics.IN_FLIGHT_MAX.labels(channel).set(limits.in_flight)
        self._lanes: Counter[str] = Counter()
        self._silent: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._resting = False
        self._inside: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._bytes: dict[Lane, int] = dict.fromkeys(LANES, 0)
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
        await self._end(lambda: [task for task, at in self._tasks.items() if at == partition], patience_s)

    async def stop(self, patience_s: float) -> None:
        """The same for all partitions at once."""
        self._tables.clear()
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)
            self._pumping = None
        await self._end(lambda: list(self._tasks), patience_s)

    async def _end(self, those: Callable[[], list[asyncio.Task[None]]], patience_s: float) -> None:
        """Wait for tasks, and for those that they begin; when patience ends, cut them off."""
        if not await self._wait(those, patience_s):
            late = those()
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _wait(self, those: Callable[[], list[asyncio.Task[None]]], patience_s: float) -> bool:
        """Whether all of them end in time."""
        now_s = asyncio.get_running_loop().time
        deadline_s = now_s() + patience_s
        while tasks := those():
            if now_s() >= deadline_s:
                return False
            await asyncio.wait(tasks, timeout=deadline_s - now_s())
        return True

    async def rest(self, patience_s: float) -> None:
        """Start nothing, and wait for what is under way, at most so long; it is not cut off."""
        self._resting = True
        await self._wait(lambda: list(self._tasks), patience_s)

    def go_on(self) -> None:
        """Start again what there is room for."""
        self._resting = False
        self.wake()

    @property
    def in_flight(self) -> int:
        """How many are between the record of their attempt and its outcome."""
        return sum(self._inside.values())

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
        """Start what there is room for, a few of each partition in turn, transactional ones in every turn first."""
        started = True
        while started:
            started = False
            for lane in LANES:
                started |= await self._fill_from(lane)

    async def _fill_from(self, lane: Lane) -> bool:
        """One turn of all partitions; whether anything was started."""
        started = False
        for partition, table in list(self._tables.items()):
            free = self._free(lane)
            if free <= 0 or self._resting:
                break
            if partition not in self._tables:
                continue
            taken = table.take(self._channel, lane, self._room, min(free, TAKEN_MAX))
            if taken:
                kept = [self._enter(dispatch) for dispatch in taken]
                self._run_task(partition, self._all(partition, taken, kept), kept)
                started = True
            await self._pace.breathe(background=lane == "bulk")
        return started

    def reserve(self, dispatch: Dispatch) -> bool:
        """Keep a place for a dispatch that is not recorded yet, if one is free and nothing of its host waits."""
        if self._resting or self._free(dispatch.kind) <= 0 or self._room(dispatch.lane) <= 0:
            return False
        self._enter(dispatch)
        return True

    def use(self, partition: int, dispatch: Dispatch) -> None:
        """Carry a dispatch whose place was kept, and which is recorded as attempting now."""
        self._begin(partition, dispatch)

    def give_back(self, dispatch: Dispatch) -> None:
        """The place is not needed after all."""
        self._leave(_place_of(dispatch))

    def _free(self, lane: Lane) -> int:
        """Places of the channel that a lane may still have."""
        free = self._limits.in_flight - sum(self._inside.values())
        if lane == "bulk":
            free = min(free, bulk_max(self._limits.in_flight) - self._inside[lane])
        if free > 0 and self._is_large(lane):
            metrics.LIMIT_HITS.labels("in_flight_bytes").inc()
            return 0
        return free

    def _is_large(self, lane: Lane) -> bool:
        """Whether the requests under way take as much memory as a lane may have."""
        if sum(self._bytes.values()) >= BYTES_MAX:
            return True
        return lane == "bulk" and self._bytes[lane] >= bulk_max(BYTES_MAX)

    def _room(self, name: str) -> int:
        """Places of a host that one of its lanes may still have."""
        lane, host = lane_of(name), host_of(name)
        if host in self._silent:
            return SILENT_PER_HOST - self._lanes[name]
        free = self._limits.per_host - sum(self._lanes[named(each, host)] for each in LANES)
        return free if lane == "transactional" else min(free, bulk_max(self._limits.per_host) - self._lanes[name])

    def _enter(self, dispatch: Dispatch) -> _Place:
        place = _place_of(dispatch)
        self._inside[place.kind] += 1
        self._lanes[place.lane] += 1
        self._bytes[place.kind] += place.size_bytes
        return place

    def _begin(self, partition: int, dispatch: Dispatch) -> None:
        self._run_task(partition, self._one(partition, dispatch), [_place_of(dispatch)])

    def _run_task(self, partition: int, work: Coroutine[None, None, None], kept: list[_Place]) -> None:
        """Run work in the places `kept`; those that it leaves there are given back when it has ended.

        Not by the work itself: a task that is cut off before its first step runs nothing of it.
        """
        task = asyncio.create_task(work)
        self._tasks[task] = partition
        task.add_done_callback(partial(self._ended, kept))

    def _ended(self, kept: list[_Place], task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        for place in kept:
            self._leave(place)
        self.wake()

    async def _all(self, partition: int, taken: list[Dispatch], kept: list[_Place]) -> None:
        """Record some as being attempted, then begin with each, which takes its place over from `kept`."""
        try:
            await self._record(partition, taken)
        except Revoked:
            return  # the partition's next owner settles what was under way
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise
        kept.clear()
        for dispatch in taken:
            self._begin(partition, dispatch)

    async def _one(self, partition: int, dispatch: Dispatch) -> None:
        host = host_of(dispatch.lane)  # as it is while it is open
        try:
            self._heard(host, is_silent=await self._carry(partition, dispatch))
        except Revoked:
            return  # the partition's next owner settles what was under way
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._fail(error)
            raise

    def _leave(self, place: _Place) -> None:
        self._inside[place.kind] -= 1
        self._bytes[place.kind] -= place.size_bytes
        self._lanes[place.lane] -= 1
        if self._lanes[place.lane] <= 0:
            del self._lanes[place.lane]

    def _heard(self, host: str, *, is_silent: bool) -> None:
        if not is_silent:
            self._silent.pop(host, None)
        elif self._limits.per_host < self._limits.in_flight:
            self._silent[host] = None
            if len(self._silent) > LANES_MAX:
                del self._silent[next(iter(self._silent))]


def _place_of(dispatch: Dispatch) -> _Place:
    """While it is open: what is final has no request any more."""
    return _Place(dispatch.kind, dispatch.lane, len(dispatch.request))
