"""Steps of fan-outs: each owner of a partition appends them, at the rate that the settings and the campaign allow."""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from agents.engine.engine import Engine
from agents.users import Users
from config import metrics
from streams import topics
from streams.codec import pack
from streams.fanouts import PLENTY, FanOut
from streams.mailbox import FanStep
from streams.records import Output

LOOK_S: Final = 0.01
IDLE_S: Final = 0.1
STEP_USERS_MIN: Final = 25
STEP_USERS_MAX: Final = 500
STEPS_PER_S: Final = 100
AGAIN_S: Final = 0.02
"""After so long, a step that the campaign's rate has cut short is followed by the next."""

STILL_S: Final = 1.0
"""A step that has led nowhere for so long, as one that a pause came before, is repeated."""

_Key = tuple[int, int]


async def run_fanouts(engine: Engine, users: Users) -> None:
    """Drive the fan-outs of the open partitions to their ends, one step of each at a time.

    A step names the keys from where the state is to where a look at the store ends; what happens to it is
    decided by the log, so a lost or repeated one costs nothing.
    """
    fanouts = _FanOuts(engine, users)
    while True:  # fan-outs open in the fold, and rates are of time
        is_open = await fanouts.look()
        await asyncio.sleep(LOOK_S if is_open else IDLE_S)


@dataclass(slots=True)
class _Asked:
    """The newest step of a fan-out: to which key and from which, when, and how long without effect until another."""

    end: str | None
    cursor: str
    at_s: float
    wait_s: float

    def is_under_way(self, fanout: FanOut) -> bool:
        """Whether the fan-out has not come to its end."""
        return self.end is None or fanout.cursor < self.end

    def repeat(self, fanout: FanOut, now_s: float, *, has_rate: bool) -> bool:
        """Whether the rest of it is to be asked for now.

        What a rate has cut short is, soon. A repeated step waits ever longer for the next while nothing comes of it,
        so that a worker that is behind finds few of them.
        """
        has_moved = fanout.cursor != self.cursor
        if has_moved:
            self.wait_s = AGAIN_S
        if now_s - self.at_s < (self.wait_s if has_rate else STILL_S):
            return False
        if not has_moved:
            self.wait_s = min(STILL_S, 2 * self.wait_s)
        self.cursor, self.at_s = fanout.cursor, now_s
        return True


class _FanOuts:
    """What this process has appended, and how much it may; no limit is hit by keeping to a rate."""

    def __init__(self, engine: Engine, users: Users) -> None:
        self._engine = engine
        self._users = users
        self._rate = engine.settings.fanout_users_per_s
        most = STEP_USERS_MAX if not self._rate else self._rate // STEPS_PER_S
        self._step_users = max(STEP_USERS_MIN, min(STEP_USERS_MAX, most))
        self._allowed = 0.0
        self._since = perf_counter()
        self._asked: dict[_Key, _Asked] = {}
        self._first = 0
        self._shown: set[int] = set()

    async def look(self) -> bool:
        """Append what is due; False where no fan-out is open."""
        found = {
            (at, fanout.number): fanout
            for at, fold in sorted(self._users.folds.items())
            for fanout in fold.position.fanouts
        }
        self._asked = {key: asked for key, asked in self._asked.items() if key in found}
        self._show(found)
        now = perf_counter()
        most = 2.0 * self._step_users if self._rate else float("inf")
        self._allowed = min(most, self._allowed + (now - self._since) * self._rate) if self._rate else most
        self._since = now
        if not found or self._engine.slices.paused:
            return bool(found)
        self._first += 1
        turn = self._first % len(found)
        keys = list(found)
        steps = [step for key in (*keys[turn:], *keys[:turn]) if (step := self._next(key, now)) is not None]
        if steps:
            metrics.FANOUT_STEPS.inc(len(steps))
            await self._engine.transport.append(steps)
        return True

    def _next(self, key: _Key, now: float) -> Output | None:
        """The next step of a fan-out; None while the last one is under way, or nothing may go on now."""
        partition, number = key
        fold = self._users.folds[partition]
        fanout = fold.fanning.ready(number)
        free = fold.fanning.slots(fanout, self._engine.clock.now_ms()) if fanout is not None else range(0)
        if fanout is None or not free:
            return None
        asked = self._asked.get(key)
        if asked is not None and asked.is_under_way(fanout):  # its rows are paid for
            if not asked.repeat(fanout, now, has_rate=free.stop < PLENTY):
                return None
        elif self._allowed <= 0:
            return None
        else:
            asked = self._asked[key] = self._stretch(partition, fanout.cursor, now)
        return Output(topics.MAILBOX.name, partition, None, pack(FanStep(number, fanout.cursor, asked.end)))

    def _stretch(self, partition: int, cursor: str, now: float) -> _Asked:
        """The users behind a cursor who are to be decided next, taken from what is allowed."""
        end, users = self._users.states[partition].end_of_stretch(cursor, self._step_users)
        self._allowed -= users
        metrics.FANOUT_USERS.inc(users)
        return _Asked(end, cursor, now, AGAIN_S)

    def _show(self, found: dict[_Key, FanOut]) -> None:
        """Tell how much is left; a partition without a fan-out has nothing left."""
        left = dict.fromkeys(self._shown, 0)
        for (partition, _), fanout in found.items():
            left[partition] = left.get(partition, 0) + max(0, fanout.users - fanout.rows)
        for partition, users in left.items():
            metrics.FANOUT_USERS_LEFT.labels(str(partition)).set(users)
        self._shown = {partition for partition, _ in found}
