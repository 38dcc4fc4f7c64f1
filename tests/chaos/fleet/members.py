"""The workers of a fleet, as the harness sees them: started, signalled, frozen, and started again when they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import Signals
from typing import Any

from agents.web.control import ControlClient

ROOT = Path(__file__).parents[3]
ANSWER_S = 10.0
STOP_S_MAX = 20.0
RESTART_S = 0.5
LOOK_S = 0.1
LOG_CHARS = 600


class Nursery:
    """The forking process of `nursery.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._born: dict[str, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}

    async def begin(self, order: dict[str, Any]) -> tuple[int, asyncio.Future[int]]:
        """Begin a life; returns its process id, and its exit code to be."""
        assert self._process.stdin is not None
        born = self._born[order["name"]] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        pid = await born
        return pid, self._ended[pid]

    async def listen(self) -> None:
        """Note what it says, for as long as it lives."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            name, pid, *code = line.decode().split()
            if code:
                self._ended.pop(int(pid)).set_result(int(code[0]))
            else:
                self._ended[int(pid)] = asyncio.get_running_loop().create_future()
                self._born.pop(name).set_result(int(pid))


@asynccontextmanager
async def nursing() -> AsyncIterator[Nursery]:
    """A nursery; all its lives end with it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.fleet.nursery"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    nursery = Nursery(process)
    listening = asyncio.create_task(nursery.listen())
    try:
        yield nursery
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening


class Member:
    """One worker: its data folder, and the life that it has now.

    `wanted`: it is to run, so that it is started again when it ends by itself. `ends` are such ends in words.
    `through`: the port of a line between its next lives and the broker, 0 for none. `standby`: they keep copies.
    """

    def __init__(self, nursery: Nursery, name: str, folder: Path, order: dict[str, Any]) -> None:
        """`order` is what its lives have in common."""
        self.name = name
        self.data = folder / name
        self.mark = folder / f"{name}.mark"
        self.log = folder / f"{name}.log"
        self.ends: list[str] = []
        self.wanted = False
        self.frozen = False
        self.through = 0
        self.standby = False
        self._nursery = nursery
        self._order = order
        self._pid = 0
        self._log_began = 0
        self._ending: asyncio.Future[int] | None = None

    @property
    def lives(self) -> bool:
        """Whether it has a process."""
        return self._ending is not None and not self._ending.done()

    @property
    def answers(self) -> bool:
        """Whether it may be asked: it lives, and is not frozen."""
        return self.lives and not self.frozen

    async def start(self, point: str = "", call: int = 1, *, freezes: bool = False) -> None:
        """Begin a life, to be killed, or frozen, at that call of the point."""
        self.mark.unlink(missing_ok=True)
        self._log_began = self.log.stat().st_size if self.log.exists() else 0
        settings = {"HEADRACE_DATA": str(self.data), "HEADRACE_STANDBY": str(self.standby)}
        environment = {**self._order["environment"], **settings}
        own = {"name": self.name, "environment": environment, "mark": str(self.mark), "log": str(self.log)}
        own |= {"through": str(self.through)}
        self._pid, self._ending = await self._nursery.begin(
            {**self._order, **own, "point": point, "call": call, "freezes": freezes}
        )
        self.wanted, self.frozen = True, False

    def signal(self, number: Signals) -> None:
        """Hit it, if it lives."""
        if self.lives:
            os.kill(self._pid, number)
            self.frozen = number == Signals.SIGSTOP

    async def end(self, number: Signals) -> int:
        """Send a signal, and return the exit code; it is not started again. One that does not end is killed."""
        assert self._ending is not None
        self.wanted = False
        self.signal(number)
        done, _ = await asyncio.wait([self._ending], timeout=STOP_S_MAX)
        if not done:
            self.signal(Signals.SIGKILL)
        return await self._ending

    async def mind(self) -> None:
        """Start it again when it has ended by itself, as whoever supervises it would."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._ending is not None and self._ending.done() and self.wanted:
                if not self.mark.exists():  # it was not a planned end
                    self.ends.append(f"{self.name} ended with {self._ending.result()}: {self.last_words()}")
                await asyncio.sleep(RESTART_S)
                await self._start_again()

    async def _start_again(self) -> None:
        if self.wanted and not self.lives:  # nobody else has started it meanwhile
            await self.start()

    def said(self) -> str:
        """What this life has logged."""
        logged = self.log.read_bytes()[self._log_began :] if self.log.exists() else b""
        return logged.decode("utf-8", "replace")

    def last_words(self) -> str:
        """The end of it."""
        return self.said()[-LOG_CHARS:]

    async def ask(self, command: str, args: dict[str, Any]) -> Any:
        """A command's answer; raises one of `GONE` when there is none."""
        async with asyncio.timeout(ANSWER_S):
            client = await ControlClient.connect(self.data)
            try:
                return await client.ask(command, args)
            finally:
                client.close()
