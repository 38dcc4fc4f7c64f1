"""The one who writes a partition's dispatches: changes that come together are committed together, in their order."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from agents.engine.engine import Engine
from streams.errors import Revoked
from streams.records import Output
from streams.sends import LANES, Lane
from tables.dispatches import Dispatches
from tables.store import Batch

CHANGES_MAX: Final = 512
OUTPUTS_MAX: Final = 2_000
SYNC_PATIENCE_S: Final[dict[Lane, float]] = {"transactional": 0.0, "bulk": 0.02}
"""Bulk sends are synced fifty times a second: each sync holds up those of transactional sends, and of their outbox.
They keep their places while they wait: at 0.05 s the log channel sent half as many."""


Stage = Callable[[Batch, list[Output]], None]


class _Change(NamedTuple):
    stage: Stage
    durable: bool
    lane: Lane
    done: asyncio.Future[None]


class Writer:
    """Commits changes of one partition, one batch after the other, so that counts and state never part.

    Those of transactional sends come into a batch before those of bulk sends. These wait for their turn in the
    background before a batch is begun, and take no second one for it: nothing transactional waits behind them.

    A commit does not wait for the sync of the one before: only those that want it durable do.

    After an error nobody knows what was kept: it goes to `fail`, and to whoever waits.
    """

    def __init__(
        self,
        engine: Engine,
        partition: int,
        table: Dispatches,
        on_ready: Callable[[set[str]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Start writing; `on_ready` hears which channels have more to attempt."""
        self._transport = engine.transport
        self._pace = engine.pace
        self._partition = partition
        self._table = table
        self._on_ready = on_ready
        self._fail = fail
        self._changes: dict[Lane, deque[_Change]] = {"transactional": deque(), "bulk": deque()}
        self._taken: list[_Change] = []
        self._unsynced: dict[Lane, list[_Change]] = {"transactional": [], "bulk": []}
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._wake_sync: dict[Lane, asyncio.Event] = {lane: asyncio.Event() for lane in LANES}
        self._failed: BaseException | None = None
        self._tasks = [
            asyncio.create_task(self._guarded(self._run()), name=f"dispatches[{partition}]"),
            *(
                asyncio.create_task(self._guarded(self._keep_synced(lane)), name=f"dispatches-sync-{lane}[{partition}]")
                for lane in LANES
            ),
        ]

    async def change(self, stage: Stage, *, durable: bool = False, lane: Lane = "transactional") -> None:
        """Let `stage` add its writes and outputs to a batch; returns when it is kept, `durable` even in a power cut.

        `stage` takes no longer than a few milliseconds, and moves dispatches of this partition only. Those of a lane
        are written in the order in which they are handed in. Raises what made the writing end.
        """
        if self._failed is not None:
            raise self._failed
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changes[lane].append(_Change(stage, durable, lane, done))
        self._wake.set()
        if lane == "transactional":
            self._hurry.set()
        await done

    @property
    def idle(self) -> bool:
        """Whether everything handed in is kept."""
        return not self._waits and not self._taken and not any(self._unsynced.values())

    @property
    def _waits(self) -> bool:
        return any(self._changes.values())

    async def close(self) -> None:
        """Write what waits, then stop: whoever hands in a change from then on is told Revoked."""
        if self._failed is None:
            with suppress(Revoked):  # one of each lane, whose sync is told behind that of all before it
                await asyncio.gather(
                    *(self.change(lambda batch, outputs: None, durable=True, lane=lane) for lane in LANES)
                )
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(self._failed or Revoked(f"the dispatches of partition {self._partition} were given up meanwhile"))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._end(error)
            self._fail(error)
            raise

    def _end(self, error: BaseException) -> None:
        """Tell whoever waits, or will, that nothing is written any more."""
        self._failed = error
        for changes in (self._taken, *self._unsynced.values(), *self._changes.values()):
            for change in changes:
                if not change.done.done():
                    change.done.set_exception(error)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waits:
                await self._write_some()

    async def _keep_synced(self, lane: Lane) -> None:
        """Sync for all of a lane that waits for it at once; meanwhile more is committed, and waits for the next."""
        unsynced, wake = self._unsynced[lane], self._wake_sync[lane]
        while True:
            await wake.wait()
            wake.clear()
            waiting = list(unsynced)
            await self._transport.sync(SYNC_PATIENCE_S[lane])
            del unsynced[: len(waiting)]
            _tell(waiting)

    async def _write_some(self) -> None:
        transactional, bulk = self._changes["transactional"], self._changes["bulk"]
        if not transactional:
            self._hurry.clear()
            await self._turn_of_bulk()
        batch = self._transport.batch()
        outputs: list[Output] = []
        taken = self._taken = []
        has_bulk = False
        while self._waits and len(taken) < CHANGES_MAX and len(outputs) < OUTPUTS_MAX:
            if not transactional and has_bulk and self._pace.background_spent:
                break
            has_bulk = has_bulk or not transactional
            taken.append((transactional or bulk).popleft())
            taken[-1].stage(batch, outputs)
            if transactional:
                await self._pace.breathe()
        self._table.stage_tally(batch)
        await self._commit(batch, outputs)
        for change in taken:
            if change.durable:
                self._unsynced[change.lane].append(change)
                self._wake_sync[change.lane].set()
        self._taken = []
        _tell(change for change in taken if not change.durable)
        channels = self._table.publish()
        if channels:
            self._on_ready(channels)

    async def _turn_of_bulk(self) -> None:
        """Wait for it in the background, unless something transactional comes meanwhile."""
        turn = asyncio.ensure_future(self._pace.breathe(background=True))
        comes = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((turn, comes), return_when=asyncio.FIRST_COMPLETED)
        finally:
            turn.cancel()
            comes.cancel()

    async def _commit(self, batch: Batch, outputs: list[Output]) -> None:
        await self._transport.commit(self._partition, batch, outputs)


def _tell(changes: Iterable[_Change]) -> None:
    """Whoever waits for these need not any more."""
    for change in changes:
        if not change.done.done():
            change.done.set_result(None)
