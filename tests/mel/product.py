"""The product as operators run it: `run` on the embedded log, two workers and a door on Kafka; killed at will."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from agents.web.control import ControlClient
from streams.errors import HeadraceError
from tests.agents.nodes import free_port
from tests.mel.story_clock import StoryClock

ROOT: Final = Path(__file__).resolve().parents[2]
KEY: Final = "the-key-of-the-story"
WORKERS: Final = ("worker-1", "worker-2")
PARTITIONS: Final = 4
PATIENCE_S: Final = 400.0
"""For whatever has to come: a machine that is busy with other things is slow, not wrong."""

ANSWER_S_MAX: Final = 60.0
STOP_S_MAX: Final = 20.0
RESTARTS_MAX: Final = 5
EXIT_ASKED_WRONGLY: Final = 2
LOOK_S: Final = 0.1
GONE: Final = (OSError, TimeoutError, HeadraceError, aiohttp.ClientError, asyncio.IncompleteReadError)


class CommandError(Exception):
    """A command of the product failed; the text holds what it said."""


class Product:
    """Its processes by name: `run`, or `worker-1`, `worker-2` and `door`; `log` holds what they said."""

    def __init__(self, folder: Path, clock: StoryClock, broker: str, **settings: str) -> None:
        """Nothing runs yet; `broker` is host:port, empty for the embedded log."""
        self.folder, self.broker = folder, broker
        self.names = (*WORKERS, "door") if broker else ("run",)
        self.http = f"127.0.0.1:{free_port()}"
        self.log = folder / "product.log"
        self.restarts: list[str] = []
        self._clock = clock
        self.settings = settings
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """Where the door is."""
        return f"http://{self.http}"

    def data(self, name: str) -> Path:
        """The data folder of one process."""
        return self.folder / ("data" if name == "run" else name)

    @property
    def exports(self) -> Path:
        """Where all of them write their Avro files."""
        return self.folder / "exports"

    def environment(self, name: str) -> dict[str, str]:
        """What one process finds in its environment."""
        ours = {
            "APP": "mel",
            "BROKER": f"kafka://{self.broker}" if self.broker else "embedded://",
            "DATA": str(self.data(name)),
            "EXPORTS": f"file://{self.exports}",
            "OUTBOX": str(self.folder / "outbox"),
            "HTTP": "" if name in WORKERS else self.http,
            "PARTITIONS": str(PARTITIONS),
            "API_KEY": KEY,
            **({"SESSION_S": "6", "MEMBER": name} if name in WORKERS else {}),
            **self.settings,
        }
        rest = {key: value for key, value in os.environ.items() if not key.startswith("HEADRACE_")}
        return {**rest, **self._clock.environment, **{f"HEADRACE_{key}": value for key, value in ours.items()}}

    # ---- lives

    async def start(self) -> None:
        """Start whatever does not run, and wait until it is ready."""
        for name in self.names:
            process = self._processes.get(name)
            if process is None or process.returncode is not None:
                self._processes[name] = await self._start(name)
        async with asyncio.timeout(PATIENCE_S):
            while not await self._is_ready():
                for name, process in self._processes.items():
                    if process.returncode is not None:
                        await self._start_again(name, process.returncode)
                await asyncio.sleep(LOOK_S)

    async def _start_again(self, name: str, code: int) -> None:
        """As a supervisor does with a process that gave up before it was ready, and tells of; not for ever."""
        self.restarts.append(f"{name} ended with {code}")
        if code == EXIT_ASKED_WRONGLY or len(self.restarts) > RESTARTS_MAX:
            raise CommandError(f"{name} ended with {code}; see {self.log}\n{self._tail()}")
        self._processes[name] = await self._start(name)

    async def _start(self, name: str) -> asyncio.subprocess.Process:
        verb = "worker" if name in WORKERS else name
        with self.log.open("ab") as said:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "app.py", verb),
                cwd=ROOT,
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    async def _is_ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health/ready") as answer:
                is_open = answer.status == 200
            return is_open and (await self.progress())["partitions"] == list(range(PARTITIONS))
        except GONE:
            return False

    def _tail(self) -> str:
        return self.log.read_text("utf-8", "replace")[-2_000:]

    async def kill(self, name: str) -> None:
        """`kill -9` of one process."""
        process = self._processes[name]
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self) -> None:
        """End everything: in good order, or, after a while, not."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes.values():
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    # ---- asking

    async def ask(self, command: str, **arguments: Any) -> list[Any]:
        """The answer of every process that holds state; raises one of GONE when there is none."""
        return [await self._ask(name, command, arguments) for name in self.names if name != "door"]

    async def _ask(self, name: str, command: str, arguments: dict[str, Any]) -> Any:
        async with asyncio.timeout(ANSWER_S_MAX):
            client = await ControlClient.connect(self.data(name))
            try:
                return await client.ask(command, arguments)
            finally:
                client.close()

    async def progress(self) -> dict[str, Any]:
        """How far all of them are together."""
        found = await self.ask("progress")
        return {
            "partitions": sorted(partition for each in found for partition in each["partitions"]),
            "idle": all(each["idle"] and not each["behind"] for each in found),
            "state": found,
        }

    async def settle(self) -> None:
        """Wait until every record has been processed: twice the same, since processes write to one another."""
        last: Any = None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(*GONE):
                    found = await self.progress()
                    if found["idle"] and found == last:
                        return
                    last = found
                await asyncio.sleep(LOOK_S)

    async def command(self, *arguments: str, name: str = "") -> Any:
        """What `app.py … --json` prints, as an operator would run it. Raises CommandError."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "app.py", *arguments, "--json"),
            cwd=ROOT,
            env=self.environment(name or self.names[0]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            out, errors = await process.communicate()
        if process.returncode:
            raise CommandError(f"app.py {' '.join(arguments)}: {errors.decode()[-1_000:] or out.decode()}")
        return json.loads(out)

    async def user(self, external_id: str) -> Any:
        """`app.py user ID`, from the worker that holds the user."""
        refused = CommandError("no worker answers")
        for name in self.names:
            if name != "door":
                try:
                    found = await self.command("user", external_id, name=name)
                except CommandError as error:
                    refused = error
                    continue
                if found is not None:
                    return found
        raise refused

    async def get(self, path: str, **parameters: str) -> Any:
        """What the door answers to a caller with the key, JSON or text."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self.url}{path}", params=parameters) as answer,
        ):
            if answer.status != 200:
                raise CommandError(f"GET {path}: {answer.status} {(await answer.text())[:500]}")
            return await (answer.json() if answer.content_type == "application/json" else answer.text())


@asynccontextmanager
async def product(folder: Path, clock: StoryClock, broker: str, **settings: str) -> AsyncIterator[Product]:
    """A product that is ended at the end, whatever happened."""
    one = Product(folder, clock, broker, **settings)
    try:
        yield one
    finally:
        await one.stop()
