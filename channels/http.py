"""The one way out over HTTP: addresses checked where they are connected to, time and size bounded, nothing followed."""

import asyncio
import errno
import socket
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from channels.addresses import AddressRefused, Guard

TOTAL_S: Final = 90.0
CONNECT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 65_536
HEADER_BYTES_MAX: Final = 8_190
CONNECTIONS_MAX: Final = 256
RESOLVER_THREADS: Final = 8
RESOLVED_S: Final = 10
IDLE_S_MAX: Final = 15.0
URL_CHARS_MAX: Final = 8_190
AGENT: Final = "Headrace"
_CONTROLS: Final = frozenset(map(chr, [*range(0x21), 0x7F]))


class UrlRefused(Exception):
    """A URL that is never requested; the text says why."""


class NoAnswer(Exception):
    """Nobody knows what the other side did: it could not be reached, went away, or took too long."""


class Answer(msgspec.Struct, frozen=True):
    """What came back: the status, the first bytes of the body, and what Retry-After asks for, in seconds."""

    status: int
    reason: str
    body: bytes
    retry_after_s: float | None = None


def read_url(text: str, guard: Guard) -> URL:
    """The URL that a text names, if it may be requested as far as can be told before resolution.

    Raises:
        UrlRefused: it is not http or https, names no host, or carries a user, white space or controls.
        AddressRefused: its host is an address that is not allowed.
    """
    if len(text) > URL_CHARS_MAX:
        raise UrlRefused(f"longer than {URL_CHARS_MAX} characters")
    if not _CONTROLS.isdisjoint(text) or "\\" in text:
        raise UrlRefused("white space, a control character or a backslash in it")
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        raise UrlRefused("not a URL") from None
    if url.scheme not in ("http", "https"):
        raise UrlRefused("only http and https are requested")
    if "@" in url.raw_authority:
        raise UrlRefused("user and password do not belong into a URL; send a header")
    if not url.raw_host or not port:
        raise UrlRefused("no host or port in it")
    guard.check_host(url.raw_host)
    return url


class CheckedResolver(AbstractResolver):
    """Resolves names in threads of its own, and gives only addresses that the guard lets pass.

    aiohttp connects to the very addresses that it was given, so nothing can change between check and
    connection. A name with one refused address is refused whole.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, "resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError when there are none, AddressRefused when one is not allowed."""
        found = await self.look_up(host, port, family)
        for each in found:
            self._guard.check(each["host"])
        return found

    async def look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        """Ask the system, without judging."""
        loop = asyncio.get_running_loop()
        infos = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in infos
        ]

    async def close(self) -> None:
        """Let the threads end; one that hangs in the system is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class HttpClient:
    """Kept connections to any number of hosts. No redirect is followed, no cookie kept, no proxy used."""

    def __init__(self, guard: Guard, *, per_host_max: int, resolver: AbstractResolver | None = None) -> None:
        """Make connections as they are needed; a resolver of one's own must check what it gives."""
        self.guard = guard
        self._per_host_max = per_host_max
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: URL, headers: dict[str, str], body: bytes) -> Answer:
        """Make one request; its URL has passed `read_url`.

        Raises:
            AddressRefused: the host's name leads to an address that is not allowed.
            NoAnswer: the connection failed, broke, or 90 s passed.
        """
        try:
            async with self._open_session().request(
                method,
                url,
                headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **headers},
                data=body or None,
                allow_redirects=False,
                skip_auto_headers=("Content-Type",),
            ) as response:
                return Answer(
                    response.status, response.reason or "", await _first_bytes(response), _retry_after_s(response)
                )
        except TimeoutError:
            raise NoAnswer("timeout: no answer in time") from None
        except aiohttp.ClientConnectorDNSError:
            raise NoAnswer("name_not_resolved: the host has no address") from None
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind of error: its text may quote the URL, and with it the user's data.
            raise NoAnswer(f"connection_failed: {type(error).__name__}") from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._resolver or CheckedResolver(self.guard),
                limit=CONNECTIONS_MAX,
                limit_per_host=self._per_host_max,
                ttl_dns_cache=RESOLVED_S,
                keepalive_timeout=IDLE_S_MAX,
                socket_factory=self._socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TOTAL_S, sock_connect=CONNECT_S),
                auto_decompress=False,
                trust_env=False,
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                read_bufsize=ANSWER_BYTES_MAX,
            )
        return self._session

    def _socket(self, info: AddrInfoType) -> socket.socket:
        """The last gate: the address that is about to be connected to, whoever named it, is checked once more."""
        family, kind, proto, _, address = info
        try:
            self.guard.check(str(address[0]))
        except AddressRefused as error:
            raise OSError(errno.EACCES, str(error)) from error
        return socket.socket(family, kind, proto)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    """At most so much of the body; the connection is given up where more follows, or where it breaks.

    The status has come by then, and it alone decides what became of the request.
    """
    found = b""
    try:
        while len(found) < ANSWER_BYTES_MAX:
            part = await response.content.read(ANSWER_BYTES_MAX - len(found))
            if not part:
                return found
            found += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()
        return found
    response.close()
    return found


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that Retry-After asks for; a date counts from the answer's own date, so no clock is compared."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        after = parsedate_to_datetime(text) - parsedate_to_datetime(response.headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return max(0.0, after.total_seconds())
