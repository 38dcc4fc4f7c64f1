"""A webhook provider in a process of its own, which answers, or takes every request and says nothing.

Run as `python -m tests.bench.hung`: it prints its port, and hangs from a line `hang` on its stdin until a line
`answer`, when what waits is answered too.
"""

import asyncio
import subprocess
import sys
from typing import Final, Self

from aiohttp import web

from tests.bench.child import ROOT

START_S: Final = 20.0


class Provider:
    """The process, as whoever measures sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.hung"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def tell(self, word: str) -> None:
        """`hang` or `answer`, from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


async def serve() -> None:
    """Answer or hang, as stdin says, until it ends."""
    answering = asyncio.Event()
    answering.set()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        await answering.wait()
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "hang":
            answering.clear()
        else:
            answering.set()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
