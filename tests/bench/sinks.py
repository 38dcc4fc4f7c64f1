"""Minimal providers in a process of their own: a mail server and an endpoint that take all, and count what is distinct.

Run as `python -m tests.bench.sinks mail|hooks [seconds to wait before each answer]`: prints its port, then for every
line on stdin a JSON object of what has come.
"""

import asyncio
import json
import re
import sys
import time
from typing import Any, Final, cast

_DISPATCH: Final = re.compile(rb"^X-Headrace-Dispatch: (\S+)\r$", re.MULTILINE)
_KEY: Final = re.compile(rb"^Idempotency-Key: (\S+)\r$", re.MULTILINE | re.IGNORECASE)
_LENGTH: Final = re.compile(rb"^Content-Length: (\d+)\r$", re.MULTILINE | re.IGNORECASE)
_PROBE: Final = re.compile(rb"probe=(\d+)=")
_END: Final = b"\r\n.\r\n"


class Taken:
    """What has come: how many, how many distinct, between when, and how old probes were when they came."""

    def __init__(self) -> None:
        self._ids: set[bytes] = set()
        self._count = 0
        self._first_s = self._last_s = 0.0
        self._ages_s: list[float] = []

    def add(self, name: bytes, content: bytes) -> None:
        """One message, by its dispatch id; `probe=<ns>=` in it says when it was due."""
        self._last_s = time.time()
        self._first_s = self._first_s or self._last_s
        self._count += 1
        self._ids.add(name)
        if found := _PROBE.search(content):
            self._ages_s.append(self._last_s - int(found[1]) / 1e9)

    def told(self) -> dict[str, Any]:
        """All of it; the ages only of what came since the last time."""
        ages, self._ages_s = self._ages_s, []
        return {
            "taken": self._count,
            "distinct": len(self._ids),
            "seconds": self._last_s - self._first_s,
            "cpu_s": time.process_time(),
            "ages_s": ages,
        }


class MailSink(asyncio.Protocol):
    """One SMTP connection: as little as a client with or without pipelining needs."""

    def __init__(self, taken: Taken, wait_s: float) -> None:
        self._taken = taken
        self._wait_s = wait_s
        self._data = bytearray()
        self._in_mail = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._out = cast("asyncio.Transport", transport)
        self._out.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer whatever is complete."""
        self._data += data
        answers = bytearray()
        while self._take_mail(answers) if self._in_mail else self._take_command(answers):
            pass
        if answers:
            self._out.write(bytes(answers))

    def _take_mail(self, answers: bytearray) -> bool:
        end = self._data.find(_END)
        if end < 0:
            return False
        mail = bytes(self._data[: end + 2])
        del self._data[: end + len(_END)]
        self._in_mail = False
        found = _DISPATCH.search(mail)
        self._taken.add(found[1] if found else b"", mail)
        if self._wait_s:
            asyncio.get_running_loop().call_later(self._wait_s, self._out.write, b"250 taken\r\n")
        else:
            answers += b"250 taken\r\n"
        return True

    def _take_command(self, answers: bytearray) -> bool:
        end = self._data.find(b"\r\n")
        if end < 0:
            return False
        verb = bytes(self._data[:4]).upper()
        del self._data[: end + 2]
        if verb == b"EHLO":
            answers += b"250-sink\r\n250 PIPELINING\r\n"
        elif verb == b"DATA":
            answers += b"354 go on\r\n"
            self._in_mail = True
        elif verb == b"QUIT":
            answers += b"221 bye\r\n"
        else:
            answers += b"250 fine\r\n"
        return True


class HookSink(asyncio.Protocol):
    """One HTTP connection that is kept."""

    def __init__(self, taken: Taken, wait_s: float) -> None:
        self._taken = taken
        self._wait_s = wait_s
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note where to answer."""
        self._out = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer whatever is complete."""
        self._data += data
        while (head := self._data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._data, 0, head + 2)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._data) < end:
                return
            request, self._data = self._data[:end], self._data[end:]
            found = _KEY.search(request)
            self._taken.add(found[1] if found else b"", request)
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            if self._wait_s:
                asyncio.get_running_loop().call_later(self._wait_s, self._out.write, answer)
            else:
                self._out.write(answer)


KINDS: Final = {"mail": MailSink, "hooks": HookSink}


async def serve(kind: str, wait_s: float) -> None:
    """Take what comes until stdin ends."""
    loop, taken = asyncio.get_running_loop(), Taken()
    server = await loop.create_server(lambda: KINDS[kind](taken, wait_s), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(taken.told()), flush=True)


def main() -> None:
    """Serve one kind."""
    import uvloop

    uvloop.run(serve(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))


if __name__ == "__main__":
    main()
