"""One HTTP/1.1 connection: a request out, its answer back, one after the other, read by aiohttp's parser."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from aiohttp.streams import StreamReader

ANSWER_BYTES_MAX: Final = 65_536
HEADER_BYTES_MAX: Final = 8_190
_FIRST_FINAL: Final = 200
_SWITCHES: Final = 101


class Came(msgspec.Struct, frozen=True, gc=False):
    """An answer; header names are found in any case. Of a body that is longer there are the first bytes."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Connection(asyncio.Protocol):
    """Made by `HttpClient`. It can be used again when `is_free`; whoever gave up waiting has to `close` it."""

    # What aiohttp's parser asks of the protocol it works for.
    _reading_paused = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._told: asyncio.Future[Came] | None = None
        self._head: Any = None
        self._payload: StreamReader | None = None
        self._is_whole = True
        self.since_s = 0.0

    @property
    def is_free(self) -> bool:
        """Whether the next request may go out: it is open, and nothing of the last answer is still to come."""
        return self._transport is not None and self._is_whole and not self._transport.is_closing()

    async def exchange(self, request: bytes, *, has_body: bool) -> Came:
        """Send the bytes of a request and wait for its answer; `has_body` is false for HEAD.

        Raises:
            OSError: the connection was lost before the answer's head had come, or has expired.
            HttpProcessingError: what came is no HTTP.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("closed before the request was sent")
        self._is_whole, self._head, self._payload = False, None, None
        self._parser = HttpResponseParser(
            cast("Any", self),
            self._loop,
            2 * ANSWER_BYTES_MAX,
            payload_exception=ClientPayloadError,
            response_with_body=has_body,
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        self._told = self._loop.create_future()
        transport.write(request)
        return await self._told

    def expire(self) -> None:
        """No answer has come in time: whoever waits for one gets a TimeoutError."""
        if self._told is not None and not self._told.done():
            self._fail(TimeoutError("no answer in time"))

    def close(self) -> None:
        """Give the connection up."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ---- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """A part of an answer; anything beyond the one that is waited for ends the connection."""
        if self._told is None or self._told.done():
            self.close()
            return
        try:
            messages, _, tail = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._fail(error)
            return
        for head, payload in messages:
            if head.code >= _FIRST_FINAL or head.code == _SWITCHES:
                if self._head is not None:
                    self._is_whole = False  # two answers to one request: who knows what comes next
                    self._tell(closing=True)
                    return
                self._head, self._payload = head, payload
        if self._head is None:
            return
        assert self._payload is not None
        if self._payload.exception() is not None or self._payload.total_bytes >= ANSWER_BYTES_MAX:
            self._tell(closing=True)
        elif self._payload.is_eof():
            self._tell(closing=bool(tail) or self._head.should_close or self._head.code == _SWITCHES)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: with the head of an answer, what there is of its body is the answer."""
        self._transport = None
        if self._told is None or self._told.done():
            return
        if self._head is not None:
            self._tell(closing=True)
        else:
            self._fail(ConnectionResetError("closed before the answer") if exc is None else exc)

    def pause_reading(self) -> None:
        """The parser holds more than it should: it will be cut."""
        self._reading_paused = True

    def resume_reading(self, **how: bool) -> None:
        """It holds less again."""
        self._reading_paused = False

    def _tell(self, *, closing: bool) -> None:
        assert self._told is not None
        assert self._payload is not None
        head, payload = self._head, self._payload
        body = b"" if payload.exception() is not None else payload.read_nowait()[:ANSWER_BYTES_MAX]
        self._is_whole = not closing
        if closing:
            self.close()
        self._told.set_result(Came(head.code, head.reason or "", head.headers, body))
        self._parser = self._head = self._payload = None

    def _fail(self, error: Exception) -> None:
        assert self._told is not None
        self._told.set_exception(error)
        self.close()
