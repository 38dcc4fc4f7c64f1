"""Faults that come from within a life: its clock, its event loop, and what its producer is told."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.chaos.points import find

STEP_MS: Final = 8_000
STEP_EVERY_S: Final = 0.3
BLOCK_AFTER_S: Final = 1.0
BLOCK_S: Final = 3.0
CALL_MAX: Final = 12
SYNCED: Final = "synced.json"
"""In the session's folder: lengths of the write-ahead logs at the last sync that ended, and when it began."""


def _clock_steps(dice: random.Random, folder: Path) -> None:
    """Every so often the clock is set, by up to eight seconds in either direction."""
    owner, name = find("config.clock:SystemClock.now_ms")
    real = getattr(owner, name)
    state = {"until": 0.0, "offset": 0}

    def now_ms(self: Any) -> int:
        if time.monotonic() > state["until"]:
            state.update(until=time.monotonic() + STEP_EVERY_S, offset=dice.randint(-STEP_MS, STEP_MS))
        return int(real(self) + state["offset"])

    setattr(owner, name, now_ms)


def _loop_blocks(dice: random.Random, folder: Path) -> None:
    """A while after the start something holds the event loop."""
    owner, name = find("agents.node:Node.start")
    real = getattr(owner, name)

    async def start(self: Any) -> None:
        await real(self)
        asyncio.get_running_loop().call_later(BLOCK_AFTER_S, time.sleep, BLOCK_S)

    setattr(owner, name, start)


Method = Callable[..., Any]


def _at_one_call(method: str, instead: Callable[[Method], Method]) -> Callable[[random.Random, Path], None]:
    """Another function takes the place of one of the producer's methods, at one of its first calls."""

    def plant(dice: random.Random, folder: Path) -> None:
        owner, name = find(f"aiokafka:AIOKafkaProducer.{method}")
        real, left = getattr(owner, name), dice.randint(1, CALL_MAX)

        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left:
                return await real(*args, **kwargs)
            (folder / "mark").touch()
            return await instead(real)(*args, **kwargs)

        setattr(owner, name, call)

    return plant


def _fails(real: Method) -> Method:
    """The client gives up before anything was sent."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        raise _errors().KafkaTimeoutError

    return call


def _unanswered(real: Method) -> Method:
    """The client gives up, and it was kept all the same."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        answer = await real(*args, **kwargs)
        if isinstance(answer, asyncio.Future):
            await answer
        raise _errors().KafkaTimeoutError

    return call


def _refused(real: Method) -> Method:
    """A batch is acknowledged with an error: the broker did not take it."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_exception(_errors().NotEnoughReplicasError())
        return answer

    return call


def _errors() -> Any:
    """Where there is a Kafka, there is its client."""
    return importlib.import_module("aiokafka.errors")


def _syncs_noted(dice: random.Random, folder: Path) -> None:
    """Before each sync of the store the lengths of its write-ahead logs are read, and kept once it has ended."""
    owner, name = find("tables.store:Store.sync")
    real = getattr(owner, name)

    def sync(self: Any) -> None:
        began_s = time.time()
        sizes = {path.name: path.stat().st_size for path in self._path.glob("*.log")}
        real(self)
        aside = folder / f"{SYNCED}.{os.getpid()}-{random.randrange(1 << 62)}"
        aside.write_text(json.dumps({"began_s": began_s, "sizes": sizes}))
        aside.rename(folder / SYNCED)

    setattr(owner, name, sync)


SMALL: Final = {
    "tables.store:WRITE_BUFFERS_BYTES": 4 << 20,
    "tables.store:WRITE_BUFFER_BYTES": 1 << 20,
    "tables.store:CACHE_BYTES": 8 << 20,
    "tables.store:WAL_BYTES_MAX": 4 << 20,
    "tables.log:TAIL_BYTES_MAX": 32 << 10,
    "agents.status.board:HISTORY_MAX": 20,
}
"""Limits of what may grow, so small that a minute fills it: what grows then is a leak."""


def _small_buffers(dice: random.Random, folder: Path) -> None:
    """Everything that has a limit is at it within a minute."""
    for target, size in SMALL.items():
        owner, name = find(target)
        setattr(owner, name, size)


INSIDE: Final[dict[str, Callable[[random.Random, Path], None]]] = {
    "clock_steps": _clock_steps,
    "loop_blocks": _loop_blocks,
    "send_fails": _at_one_call("send_batch", _fails),
    "send_unanswered": _at_one_call("send_batch", _unanswered),
    "commit_fails": _at_one_call("commit_transaction", _fails),
    "commit_unanswered": _at_one_call("commit_transaction", _unanswered),
    "batch_refused": _at_one_call("send_batch", _refused),
    "syncs_noted": _syncs_noted,
    "small_buffers": _small_buffers,
}
"""By name; each takes the dice of its life and the session's folder."""


def befall(name: str, seed: int, folder: Path) -> None:
    """Let a fault into this process."""
    INSIDE[name](random.Random(seed), folder)
