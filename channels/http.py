"""The one way out over HTTP: addresses checked where they are connected to, time and size bounded, nothing followed."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final, NamedTuple, Self

import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from channels.addresses import Guard
from channels.deadlines import Deadlines
from channels.http_connection import Came, Connection

Proof = Callable[[], Awaitable[None]]

TOTAL_S: Final = 90.0
CONNECT_S: Final = 10.0
CONNECTIONS_MAX: Final = 256
"""Of those that are kept without a request; those with one are bounded by the channel's limits."""

PEERS_MAX: Final = 4_096
RESOLVER_THREADS: Final = 8
RESOLVED_S: Final = 10
IDLE_S_MAX: Final = 15.0
URL_CHARS_MAX: Final = 8_190
HOST_CHARS_MAX: Final = 253
LABEL_CHARS_MAX: Final = 63
AGENT: Final = "Headrace"
_CONTROLS: Final = frozenset(map(chr, [*range(0x21), 0x7F]))
_DEFAULTS: Final = {
    "user-agent": f"User-Agent: {AGENT}",
    "accept": "Accept: */*",
    "accept-encoding": "Accept-Encoding: identity",
}
_BODYLESS: Final = ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE")


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


class Target(NamedTuple):
    """Where a request goes: what connections are kept by, and what the request's first lines say."""

    is_tls: bool
    host: str
    port: int
    path: str
    named: str

    @classmethod
    def of(cls, url: URL) -> Self:
        """Of a URL that has passed `read_url`."""
        host, port = url.raw_host, url.port
        assert host is not None
        assert port is not None
        named = url.host_port_subcomponent
        return cls(url.scheme == "https", host.rstrip("."), port, url.raw_path_qs, str(named))


def read_url(text: str, guard: Guard) -> Target:
    """The target of the URL that a text names, if it may be requested as far as can be told before resolution.

    Raises:
        UrlRefused: it is not http or https, names no host or one that cannot be, or carries a user, white space or
            controls.
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
    if not _is_host(url.raw_host):
        raise UrlRefused("its host has an empty part between dots, or is too long for a name")
    guard.check_host(url.raw_host)
    return Target.of(url)


def _is_host(host: str) -> bool:
    """Whether it is an address in brackets, or has only parts that a name may have, as DNS bounds them."""
    name = host.removesuffix(".")
    labels = name.split(".")
    return ":" in host or (len(name) <= HOST_CHARS_MAX and all(0 < len(each) <= LABEL_CHARS_MAX for each in labels))


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


Peer = tuple[bool, str, int]
"""TLS or not, host and port: connections to the same are alike."""


class HttpClient:
    """Kept connections to any number of hosts. No redirect is followed, no cookie kept, no proxy used.

    Each request has a connection of its own meanwhile: how many there are is bounded by whoever asks.
    """

    def __init__(self, guard: Guard, *, resolver: AbstractResolver | None = None) -> None:
        """Make connections as they are needed; a resolver of one's own must check what it gives."""
        self.guard = guard
        self._resolver = resolver or CheckedResolver(guard)
        self._kept: dict[Peer, list[Connection]] = {}
        self._kept_count = 0
        self._open: set[Connection] = set()
        self._deadlines = Deadlines()
        self._resolved: dict[tuple[str, int], tuple[float, list[ResolveResult]]] = {}
        self._tls: ssl.SSLContext | None = None

    async def request(
        self, method: str, target: Target, headers: dict[str, str], body: bytes, proof: Proof | None = None
    ) -> Answer:
        """Make one request. `proof` is asked again where it had to wait for a connection; what it raises is raised.

        Raises:
            AddressRefused: the host's name leads to an address that is not allowed.
            UrlRefused: a header cannot be sent.
            NoAnswer: the connection failed, broke, or 90 s passed.
        """
        data = _request_bytes(method, target, headers, body)
        peer = (target.is_tls, target.host, target.port)
        try:
            came = await self._exchange(peer, data, proof, has_body=method != "HEAD")
        except TimeoutError:
            raise NoAnswer("timeout: no answer in time") from None
        except (socket.gaierror, UnicodeError):  # the resolver's, for a name that it cannot even write down
            raise NoAnswer("name_not_resolved: the host has no address") from None
        except (HttpProcessingError, OSError) as error:
            # Only the kind of error: its text may quote the URL, and with it the user's data.
            raise NoAnswer(f"connection_failed: {type(error).__name__}") from None
        return Answer(came.status, came.reason, came.body, _retry_after_s(came.headers))

    async def _exchange(self, peer: Peer, data: bytes, proof: Proof | None, *, has_body: bool) -> Came:
        connection = self._take(peer)
        if connection is None:
            async with asyncio.timeout(TOTAL_S):
                connection = await self._connect(peer)
                await self._prove(connection, proof)
                return await self._exchange_on(connection, peer, data, has_body=has_body)
        self._deadlines.add(connection, asyncio.get_running_loop().time() + TOTAL_S)
        try:
            return await self._exchange_on(connection, peer, data, has_body=has_body)
        finally:
            self._deadlines.remove(connection)

    async def _prove(self, connection: Connection, proof: Proof | None) -> None:
        """The host may have taken its time, or this process have stood still: is the request still ours to make?"""
        if proof is not None:
            try:
                await proof()
            except BaseException:
                self._drop(connection)
                raise

    async def _exchange_on(self, connection: Connection, peer: Peer, data: bytes, *, has_body: bool) -> Came:
        try:
            return await connection.exchange(data, has_body=has_body)
        except BaseException:
            connection.close()
            raise
        finally:
            self._give_back(peer, connection)

    def _take(self, peer: Peer) -> Connection | None:
        """The connection used last, if it is open and young enough; older ones are closed."""
        kept = self._kept.get(peer)
        now_s = asyncio.get_running_loop().time()
        while kept:
            connection = kept.pop()
            self._kept_count -= 1
            if connection.is_free and now_s - connection.since_s < IDLE_S_MAX:
                return connection
            self._drop(connection)
        return None

    def _give_back(self, peer: Peer, connection: Connection) -> None:
        if not connection.is_free:
            self._drop(connection)
            return
        if self._kept_count >= CONNECTIONS_MAX:
            self._forget_one()
        connection.since_s = asyncio.get_running_loop().time()
        self._kept.setdefault(peer, []).append(connection)
        self._kept_count += 1

    def _forget_one(self) -> None:
        """Close the connection that has been idle for longest at the host that was called first."""
        for peer, kept in list(self._kept.items()):
            if kept:
                self._kept_count -= 1
                self._drop(kept.pop(0))
                return
            del self._kept[peer]

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)

    async def _connect(self, peer: Peer) -> Connection:
        """A new connection, to the first of the host's addresses that takes one."""
        is_tls, host, port = peer
        if is_tls and self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        failure: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
        addresses = await self._addresses(host, port)
        for found in addresses:
            try:
                async with asyncio.timeout(CONNECT_S / len(addresses)):
                    return await self._connect_to(found, host if is_tls else None)
            except OSError as error:  # a timeout is one
                failure = error
        raise failure

    async def _connect_to(self, found: ResolveResult, tls_host: str | None) -> Connection:
        """The last gate: the address that is about to be connected to, whoever named it, is checked once more."""
        self.guard.check(found["host"])
        loop = asyncio.get_running_loop()
        outgoing = socket.socket(found["family"], socket.SOCK_STREAM)
        try:
            outgoing.setblocking(False)
            await loop.sock_connect(outgoing, (found["host"], found["port"]))
            _, connection = await loop.create_connection(
                lambda: Connection(loop),
                sock=outgoing,
                ssl=self._tls if tls_host is not None else None,
                server_hostname=tls_host,
            )
        except BaseException:
            outgoing.close()
            raise
        self._open.add(connection)
        return connection

    async def _addresses(self, host: str, port: int) -> list[ResolveResult]:
        """The host's addresses, checked; what was resolved is kept for ten seconds."""
        now_s = asyncio.get_running_loop().time()
        known = self._resolved.get((host, port))
        if known is not None and now_s - known[0] < RESOLVED_S:
            return known[1]
        try:
            address = ip_address(host)
        except ValueError:
            found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        else:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
            found = [ResolveResult(hostname=host, host=host, port=port, family=family, proto=0, flags=0)]
        if len(self._resolved) >= PEERS_MAX:
            self._resolved.clear()
        self._resolved[host, port] = now_s, found
        return found

    async def close(self) -> None:
        """Close the connections."""
        for connection in list(self._open):
            self._drop(connection)
        self._deadlines.close()
        self._kept.clear()
        self._kept_count = 0
        await self._resolver.close()


def _request_bytes(method: str, target: Target, headers: dict[str, str], body: bytes) -> bytes:
    """The request as it goes out. Raises UrlRefused where a header would break it."""
    names = {name.lower() for name in headers}
    lines = [f"{method} {target.path} HTTP/1.1", f"Host: {target.named}"]
    lines += [line for name, line in _DEFAULTS.items() if name not in names]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body or method not in _BODYLESS:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join(lines)
    if head.count("\n") != len(lines) - 1 or head.count("\r") != len(lines) - 1 or "\0" in head:
        raise UrlRefused("a header has a line end or NUL in it")
    return head.encode("utf-8", "replace") + b"\r\n\r\n" + body


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for; a date counts from the answer's own date, so no clock is compared."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        after = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError, OverflowError):  # whatever an endpoint may write there
        return None
    return max(0.0, after.total_seconds())
