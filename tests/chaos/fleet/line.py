"""A line to the broker that can fall silent: it takes what is sent and every new connection, and nothing comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, Literal

from aiokafka.conn import AIOKafkaConnection

CHUNK_BYTES: Final = 1 << 16
HOST: Final = "127.0.0.1"

Side = Literal["requests", "answers"]
SIDES: Final[tuple[Side, Side]] = ("requests", "answers")
"""What gets lost in the silence first: the broker hears nothing, or it hears all and its answers do not come."""


class Line:
    """Carries bytes between a worker and its broker, both ways, on a port of its own.

    While it is silent nothing is carried from one side to the other, or back, and nothing is closed. Behind the silence
    what was kept is carried on; or it is forgotten, and connections of then never answer, while new ones do.
    """

    def __init__(self, broker: str) -> None:
        """`broker` is where it leads, as `host:port`; of several the first."""
        self._host, _, port = broker.partition(",")[0].rpartition(":")
        self._broker_port = int(port)
        self._flows = {side: asyncio.Event() for side in SIDES}
        self._dead: set[asyncio.Task[Any]] = set()
        self._carrying: set[asyncio.Task[Any]] = set()
        for flow in self._flows.values():
            flow.set()

    def hush(self, side: Side) -> None:
        """Carry nothing more from that side."""
        self._flows[side].clear()

    def resume(self, *, forgets: bool) -> None:
        """Carry on; or leave those that are connected now without an answer for ever."""
        if forgets:
            self._dead |= self._carrying
        for flow in self._flows.values():
            flow.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry for one connection until either side has closed it."""
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            answers, requests = await asyncio.open_connection(self._host, self._broker_port)
            try:
                one = asyncio.create_task(self._carry(reader, requests, "requests", task))
                two = asyncio.create_task(self._carry(answers, writer, "answers", task))
                await asyncio.wait([one, two], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in (one, two):
                    each.cancel()
                await asyncio.gather(one, two, return_exceptions=True)
                requests.close()
        except OSError:
            pass  # the broker is away, which closes the connection here, too
        finally:
            self._carrying.discard(task)
            self._dead.discard(task)
            writer.close()

    async def _carry(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, side: Side, whose: asyncio.Task[Any]
    ) -> None:
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                await self._flows[side].wait()
                if whose in self._dead:
                    continue
                target.write(data)
                await target.drain()

    async def close(self) -> None:
        """End every connection."""
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)


@asynccontextmanager
async def line_to(broker: str) -> AsyncIterator[tuple[Line, int]]:
    """A line that is up, and its port; its connections are closed at the end."""
    line = Line(broker)
    server = await asyncio.start_server(line.serve, HOST, 0)
    try:
        yield line, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await line.close()


def lead_through(port: int) -> None:
    """Let every connection of this process to a broker go through a line, whatever address the broker tells."""
    real = AIOKafkaConnection.connect

    async def connect(self: Any) -> Any:
        self._host, self._port = HOST, port
        return await real(self)

    setattr(AIOKafkaConnection, "connect", connect)  # noqa: B010
