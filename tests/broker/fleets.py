"""A fleet as an operator runs it: `run` on Kafka, with a provider that can hang and workers that stay dead."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.agents.nodes import free_port
from tests.broker.stalled import known_of, patience
from tests.broker.workers import ROOT, Site
from tests.processes import children_of

KEY = "a-test-key"
WORKERS = 2
WAIT_S = 60.0
LOOK_S = 0.05
STOP_S_MAX = 30
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REFUSAL = ANSWER.replace(b"200 OK", b"503 Service Unavailable")


class Provider:
    """Takes every connection and answers 200, 503 to every other while it `fails`, nothing at all while it `hangs`."""

    def __init__(self) -> None:
        self.hangs = False
        self.fails = False
        self.answered = 0
        self._open: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        for writer in self._open:
            writer.close()
        self._server.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def recover(self) -> None:
        """Answer again; what hung is cut off."""
        self.hangs = False
        for writer in self._open:
            writer.close()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.hangs:
            self._open.append(writer)
            return
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            sizes = [
                line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            ]
            await reader.readexactly(int(sizes[0]) if sizes else 0)
            self.answered += 1
            writer.write(REFUSAL if self.fails and self.answered % 2 else ANSWER)
            await writer.drain()
        writer.close()


class Fleet:
    """The process of a fleet, or of a door; `log` holds what it and its workers said."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path, site: Site) -> None:
        self.process = process
        self.url = url
        self.log = log
        self._site = site

    async def get(self, path: str) -> Any:  # noqa: ANN401 - a page may be JSON or text
        """What a page answers, JSON or text; nothing while nobody does."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
                return await (answer.json() if answer.content_type == "application/json" else answer.text())
        except aiohttp.ClientError:
            return None

    async def says(self, *words: str, seconds: float = WAIT_S) -> dict[str, Any]:
        """The status once one component's line holds all these words. Raises AssertionError with what is known."""
        async with patience(seconds, f"{words} in the status", self.known):
            while True:
                assert self.process.poll() is None, f"it ended with {self.process.returncode}\n{self.known()}"
                found = await self.get("/status.json") or {"components": []}
                lines = [" ".join((each["component"], each["state"], each["why"])) for each in found["components"]]
                if any(all(word in line for word in words) for line in lines):
                    return dict(found)
                await asyncio.sleep(LOOK_S)

    def known(self) -> str:
        """What it and its workers said and wait for, and how the broker sees them."""
        pid = None if self.process.poll() is not None else self.process.pid
        return known_of(self._site.broker.address, self._site.app, [self.log], [pid])

    def worker(self, number: int) -> int | None:
        """The process id of a worker, while it runs."""
        for pid in children_of(self.process.pid):
            with suppress(OSError):
                if f"/worker-{number}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    return pid
        return None

    @asynccontextmanager
    async def dead(self, number: int) -> AsyncIterator[None]:
        """Kill a worker with -9, and again whenever it comes back: one that cannot live on its machine."""

        async def kill() -> None:
            while True:
                pid = self.worker(number)
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(LOOK_S)

        killing = asyncio.create_task(kill())
        try:
            yield
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)

    @asynccontextmanager
    async def frozen(self, number: int) -> AsyncIterator[None]:
        """Let a worker stand still, and go on at the end."""
        pid = self.worker(number)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def fleet(site: Site, **own: str) -> AsyncIterator[Fleet]:
    """A running fleet of two, whose partitions are all open; stopped at the end."""
    port = free_port(1 + WORKERS)  # each worker has one of its own, behind the fleet's
    defaults = {"WORKERS": str(WORKERS), "HTTP": f"127.0.0.1:{port}", "API_KEY": KEY, "SESSION_S": "6"}
    log = site.folder / "run.log"
    with log.open("ab") as said:
        command = [sys.executable, "app.py", "run"]
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            command, cwd=ROOT, env=site.environment("data", **defaults, **own), stdout=said, stderr=said
        )
    started = Fleet(process, f"http://127.0.0.1:{port}", log, site)
    try:
        await started.says("Partitions OK all")
        yield started
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, STOP_S_MAX)
