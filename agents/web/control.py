"""The control socket: how commands reach a running process; one JSON object per line, both ways."""

import asyncio
import os
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.errors import BadDefinition, BadSetting, BadState, HeadraceError, OutsideFailing
from streams.events import JSONValue
from streams.records import Output

SOCKET_NAME: Final = "control.sock"
LINE_BYTES_MAX: Final = 64 * 1024 * 1024

_KINDS: Final = {kind.__name__: kind for kind in (BadDefinition, BadSetting, BadState, OutsideFailing)}

Command = Callable[[dict[str, Any]], Awaitable[Any]]


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path to the socket below the 108 bytes that the system allows, however deep the folder lies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)


class ControlServer:
    """Answers commands: `{"command": name, "args": {…}}` with `{"ok": answer}` or `{"error": text}`."""

    def __init__(self, commands: dict[str, Command]) -> None:
        self._commands = commands
        self._server: asyncio.AbstractServer | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, folder: Path) -> None:
        """Listen in the data folder, for its owner alone."""
        (folder / SOCKET_NAME).unlink(missing_ok=True)
        old_mask = os.umask(0o177)
        try:
            with _short_path(folder) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=LINE_BYTES_MAX)
        finally:
            os.umask(old_mask)

    async def stop(self, folder: Path) -> None:
        """Stop listening, and hang up on whoever is connected."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        (folder / SOCKET_NAME).unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self._answer(line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            return  # the other side is gone, or sent a line beyond the limit
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(line, type=dict[str, Any])
            command = self._commands.get(str(request.get("command")))
            if command is None:
                return {"error": f"unknown command {request.get('command')!r}; the process may be older than this one"}
            return {"ok": await command(request.get("args") or {})}
        except RecursionError:
            return {"error": "the request is nested too deep"}
        except (HeadraceError, msgspec.DecodeError, UnicodeDecodeError) as error:
            return {"error": str(error), "kind": type(error).__name__}


class ControlClient:
    """The other end; raises ConnectionError or FileNotFoundError when nobody listens."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, folder: Path) -> "ControlClient":
        """Connect to the process that uses a data folder."""
        with _short_path(folder) as path:
            return cls(*await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX))

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer. Raises HeadraceError with what the process said."""
        self._writer.write(msgspec.json.encode({"command": command, "args": args}) + b"\n")
        await self._writer.drain()
        line = await self._reader.readline()
        if not line:
            raise ConnectionResetError("the process went away before it answered")
        answer = msgspec.json.decode(line, type=dict[str, Any])
        if "error" in answer:
            raise _KINDS.get(answer.get("kind", ""), HeadraceError)(str(answer["error"]))
        return answer.get("ok")

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def to_wire(outputs: list[Output]) -> list[list[Any]]:
    """Outputs as JSON can carry them."""
    return [
        [
            out.topic,
            out.partition,
            None if out.key is None else b64encode(out.key).decode(),
            b64encode(out.value).decode(),
        ]
        for out in outputs
    ]
