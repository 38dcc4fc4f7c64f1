"""Scan steps: each owner of a partition appends them, at the rate that the settings allow."""

import asyncio
from time import perf_counter
from typing import Final

from agents.engine.engine import Engine
from agents.users import Users
from config import metrics
from streams import topics
from streams.codec import pack
from streams.mailbox import Step
from streams.records import Output

LOOK_S: Final = 0.01
IDLE_S: Final = 0.2
STEP_USERS_MIN: Final = 25
STEP_USERS_MAX: Final = 500
STEPS_PER_S: Final = 100
"""Aimed at, so that a step stays short: it holds up the events of its own partition while it is decided, 1 to 2 ms."""


async def run_scans(engine: Engine, users: Users) -> None:
    """Drive the scans of the open partitions to their ends, one step of a partition at a time.

    A step names the keys from where the state is to where a look at the store ends; what happens to it is
    decided by the log, so a lost or repeated one costs nothing.
    """
    scans = _Scans(engine, users)
    while True:  # scans begin in the fold, and the rate is one of time
        is_open = await scans.look()
        await asyncio.sleep(LOOK_S if is_open else IDLE_S)


class _Scans:
    """What this process has appended, and how much it may.

    That a scan goes no faster than its rate is no limit hit: it does so from its beginning to its end.
    """

    def __init__(self, engine: Engine, users: Users) -> None:
        self._engine = engine
        self._users = users
        self._rate = engine.settings.scan_users_per_s
        self._step_users = max(STEP_USERS_MIN, min(STEP_USERS_MAX, self._rate // STEPS_PER_S))
        self._allowed = 0.0
        self._since = perf_counter()
        self._asked: dict[int, tuple[int, str | None]] = {}
        self._first = 0
        self._shown: set[int] = set()
        self._has_scans = False

    async def look(self) -> bool:
        """Append what is due; False where no scan is open."""
        behind = [at for at, fold in sorted(self._users.folds.items()) if fold.position.open_scan is not None]
        self._asked = {at: asked for at, asked in self._asked.items() if at in behind}
        self._show(behind)
        now = perf_counter()
        most = 2.0 * self._step_users
        self._allowed = min(most, self._allowed + (now - self._since) * self._rate)
        self._since = now
        had_scans, self._has_scans = self._has_scans, bool(behind)
        if not behind and had_scans:
            await self._users.switch()  # to a version that had to wait for the end of the scan
        if not behind or self._engine.slices.paused:
            return False
        self._first += 1
        turn = self._first % len(behind)
        steps = [step for at in (*behind[turn:], *behind[:turn]) if (step := self._next(at)) is not None]
        if steps:
            metrics.SCAN_STEPS.inc(len(steps))
            await self._engine.transport.append(steps)
        return True

    def _next(self, partition: int) -> Output | None:
        """The next step of a partition; None while the last one is under way, or the rate allows no more."""
        if self._allowed <= 0:
            return None
        scan = self._users.folds[partition].position.open_scan
        assert scan is not None
        version, end = self._asked.get(partition, (-1, ""))
        if version == scan.version and (end is None or scan.cursor < end):
            return None
        to, users = self._users.states[partition].end_of_stretch(scan.cursor, self._step_users)
        self._asked[partition] = (scan.version, to)
        self._allowed -= users
        metrics.SCAN_USERS.inc(users)
        return Output(topics.MAILBOX.name, partition, None, pack(Step(scan.version, scan.cursor, to)))

    def _show(self, behind: list[int]) -> None:
        """Tell how much is left; a partition without a scan has nothing left."""
        for partition in sorted({*behind, *self._shown}):
            fold = self._users.folds.get(partition)
            scan = fold.position.open_scan if fold is not None else None
            left = max(0, fold.position.totals.users - scan.rows) if fold is not None and scan is not None else 0
            metrics.SCAN_USERS_LEFT.labels(str(partition)).set(left)
        self._shown = set(behind)
