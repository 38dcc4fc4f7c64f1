"""Outgoing HTTP against a real server: what is refused, what is sent, and what each answer means."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_network

import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from channels import http
from channels.addresses import Guard
from channels.calls import Calls
from channels.channel import Receipt, Request
from channels.http import CheckedResolver, HttpClient
from streams.codec import to_json
from streams.errors import Revoked

NAME = f"{7:032x}"
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def accept(request: web.BaseRequest) -> web.StreamResponse:
    """The answer of an endpoint that was told nothing else."""
    return web.Response(text="thanks")


class Endpoint:
    """A server that keeps what it was sent, and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Handler = accept
        self.url = ""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return await self.answer(request)


@asynccontextmanager
async def serving(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Endpoint]:
    """Serve an endpoint on an address of this machine."""
    endpoint = Endpoint()
    runner = web.ServerRunner(web.Server(endpoint.serve), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    endpoint.url = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield endpoint
    finally:
        await runner.cleanup()


@asynccontextmanager
async def calling(*networks: str, resolver: AbstractResolver | None = None) -> AsyncIterator[Calls]:
    """A provider that may reach these networks."""
    guard = Guard([ip_network(network) for network in networks or ("127.0.0.1/32",)])
    calls = Calls(HttpClient(guard, resolver=resolver))
    try:
        yield calls
    finally:
        await calls.close()


def hook(url: str, body: str = "hello", method: str = "POST", **headers: str) -> Request:
    """A rendered webhook."""
    headers["Idempotency-Key"] = NAME
    call = {"dispatch_id": NAME, "campaign": "c", "method": method, "url": url, "headers": headers, "body": body}
    return Request(NAME, url, to_json(call))


async def test_a_call_carries_its_key_and_its_very_bytes() -> None:
    """The endpoint sees method, path, body and key as rendered, no cookie, and a repeat is the same to the byte."""
    async with serving() as endpoint, calling() as calls:
        request = hook(endpoint.url + "/a?b=c%20d", "Grüße\n", "PUT", Accept="x/y")
        assert await calls.attempt(request) == await calls.attempt(request) == Receipt(NAME, "sent")
    first, second = endpoint.requests
    method, path, headers, body = first

    assert first == second
    assert (method, path, body) == ("PUT", "/a?b=c%20d", "Grüße\n".encode())
    assert headers["Idempotency-Key"] == NAME
    assert headers["Accept"] == "x/y"
    assert not {"Cookie", "Content-Type"} & set(headers)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((200, "sent"), (201, "sent"), (204, "sent"), (299, "sent")),
        *((400, "failed"), (401, "failed"), (404, "failed"), (410, "failed"), (301, "failed"), (304, "failed")),
        *((408, "retry"), (429, "retry"), (500, "retry"), (503, "retry"), (599, "retry")),
    ],
)
async def test_the_status_decides(status: int, kind: str) -> None:
    """Each class of answers becomes the outcome that Braze gives it, with status and body as the reason."""
    async with serving() as endpoint, calling() as calls:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=status, text="so\x00 it is", headers={"Retry-After": "7", "Set-Cookie": "a=b"})

        endpoint.answer = answer
        receipt = await calls.attempt(hook(endpoint.url))
        await calls.attempt(hook(endpoint.url))

    assert receipt.kind == kind
    assert receipt.reason.startswith("" if kind == "sent" else f"{status}")
    assert receipt.retry_after_s == (7.0 if kind == "retry" else None)
    assert "Cookie" not in endpoint.requests[1][2]


@pytest.mark.parametrize("target", ["http://127.0.0.2:1/", "http://169.254.169.254/latest", "http://[::1]/", "/same"])
async def test_no_redirect_is_followed(target: str) -> None:
    """A redirect, to a private address or anywhere, is a failed call: nothing is requested a second time."""
    async with serving() as endpoint, calling() as calls:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": target})

        endpoint.answer = answer
        receipt = await calls.attempt(hook(endpoint.url))

    assert receipt.kind == "failed"
    assert receipt.reason.startswith("307")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.2:{port}/", "http://[::ffff:127.0.0.2]:{port}/", "http://2130706433:{port}/"),
        *("http://0x7f.1:{port}/", "http://0177.0.0.1:{port}/", "http://127.1:{port}/"),
        *("http://example.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}@example.com/", "http://a:b@127.0.0.1/"),
        *("ftp://127.0.0.1:{port}/", "file:///etc/passwd", "//127.0.0.1:{port}/", "127.0.0.1:{port}", "", "http://"),
        *("http://127.0.0.1:{port}\\@example.com/", "http://127.0.0.1:{port}/\tx", "http://127.0.0.1:99999/"),
        *(
            "http://\uff11\uff12\uff17.0.0.2:{port}/",
            "http://[::1]:{port}/",
            "http://[fe80::1%25lo]:{port}/",
            "http://[::1",
        ),
        *("https://.example.com/hook", "http://a..b/", "http://a../", "http://" + "a" * 64 + ".example/"),
        "http://" + "a." * 127 + "example/",
        "http://127.0.0.1:{port}/" + "x" * 9_000,
    ],
)
async def test_urls_that_are_never_requested(url: str) -> None:
    """Private and impossible hosts, users in URLs and other schemes fail at once, and nothing reaches a server."""
    async with serving("127.0.0.2") as endpoint, calling("127.0.0.1/32") as calls:
        receipt = await calls.attempt(hook(url.replace("{port}", endpoint.url.rpartition(":")[2])))

    assert receipt.kind == "failed"
    assert receipt.reason.startswith("url_refused: ")
    assert endpoint.requests == []


class Rebinding(CheckedResolver):
    """A name whose owner answers differently each time."""

    def __init__(self, guard: Guard, *answers: tuple[str, ...]) -> None:
        super().__init__(guard)
        self.answers = list(answers)

    async def look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0)
            for each in self.answers.pop(0)
        ]


async def test_rebinding_between_check_and_connection_is_impossible() -> None:
    """The connection goes to the very address that was checked; a name with one private address is refused."""
    guard = Guard([ip_network("127.0.0.1/32")])
    async with serving() as allowed, serving("127.0.0.2", int(allowed.url.rpartition(":")[2])) as private:
        url = allowed.url.replace("127.0.0.1", "rebinding.example")
        resolver = Rebinding(guard, ("127.0.0.1",), ("127.0.0.2",), ("127.0.0.1", "127.0.0.2"))
        for kind in ("sent", "failed", "failed"):
            # A new client each time: nothing is remembered of the name.
            async with calling(resolver=resolver) as calls:
                assert (await calls.attempt(hook(url))).kind == kind

    assert resolver.answers == []
    assert len(allowed.requests) == 1
    assert private.requests == []


class Unchecked(Rebinding):
    """A resolver that somebody forgot to guard."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return await self.look_up(host, port, family)


@pytest.mark.parametrize("answers", [("127.0.0.2",), ("127.0.0.2", "127.0.0.3")])
async def test_the_last_gate_is_the_socket(answers: tuple[str, ...]) -> None:
    """Even an address that nobody checked before is never connected to."""
    async with serving("127.0.0.2") as private:
        url = private.url.replace("127.0.0.2", "unchecked.example")
        async with calling(resolver=Unchecked(Guard(), answers)) as calls:
            receipt = await calls.attempt(hook(url))

    assert receipt.kind in ("failed", "retry")
    assert private.requests == []


class Unwritable(CheckedResolver):
    """A resolver that cannot put a name into the form of DNS, as Python's own cannot with some."""

    async def look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        raise UnicodeError("label empty or too long")


async def test_a_name_that_cannot_be_asked_for_has_no_address() -> None:
    """A name that the system's resolver refuses to encode is one that was not resolved, and nothing is raised."""
    async with calling(resolver=Unwritable(Guard())) as calls:
        receipt = await calls.attempt(hook("http://odd.example/"))

    assert receipt.kind == "retry"
    assert receipt.reason.startswith("name_not_resolved: ")


async def test_a_name_of_this_machine_is_refused() -> None:
    """`localhost` resolves to loopback, which is refused after resolution."""
    async with serving() as endpoint, calling("192.168.0.0/16") as calls:
        receipt = await calls.attempt(hook(endpoint.url.replace("127.0.0.1", "localhost")))

    assert receipt.kind == "failed"
    assert endpoint.requests == []


async def test_faults_on_the_way_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port, a reset, an answer that is no HTTP and a hang are retried, and the reason says which."""
    monkeypatch.setattr(http, "TOTAL_S", 0.3)

    async def misbehave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).split()[1]
        if path == b"/garbage":
            writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        elif path == b"/hang":
            await reader.read()
        elif path == b"/half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n")
        writer.close()
        over.release()

    over = asyncio.Semaphore(0)

    server = await asyncio.start_server(misbehave, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, calling() as calls:
        found = {
            path: (await calls.attempt(hook(f"http://127.0.0.1:{port}/{path}")))
            for path in ("garbage", "hang", "half", "reset")
        }
        for _ in found:
            await over.acquire()
        found["closed"] = await calls.attempt(hook("http://127.0.0.1:1/"))
        found["nobody"] = await calls.attempt(hook("http://does-not-exist.invalid/"))

    assert {receipt.kind for receipt in found.values()} == {"retry"}
    assert found["hang"].reason.startswith("timeout: ")
    assert found["nobody"].reason.startswith("name_not_resolved: ")
    assert found["reset"].reason.startswith("connection_failed: ")


async def test_a_hang_on_a_kept_connection_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that answered before, and then says nothing, is given up in time, and the next call has another."""
    monkeypatch.setattr(http, "TOTAL_S", 0.3)
    async with serving() as endpoint, calling() as calls:
        sockets = set[object]()
        hung = asyncio.Event()

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            assert request.transport is not None
            sockets.add(request.transport.get_extra_info("peername"))
            if len(endpoint.requests) == 3:
                hung.set()
                await asyncio.sleep(60)
            return web.Response(text="thanks")

        endpoint.answer = answer
        found = [(await calls.attempt(hook(endpoint.url))).kind for _ in range(2)]
        began = asyncio.get_running_loop().time()
        silent = await calls.attempt(hook(endpoint.url))
        took_s = asyncio.get_running_loop().time() - began
        assert hung.is_set()
        assert len(sockets) == 1
        found.append((await calls.attempt(hook(endpoint.url))).kind)

    assert found == ["sent", "sent", "sent"]
    assert silent == Receipt(NAME, "retry", "timeout: no answer in time", is_silent=True)
    assert took_s > 0.28
    assert len(sockets) == 2


async def test_who_waited_for_a_connection_is_asked_again_whether_the_call_is_theirs() -> None:
    """A worker that stood still while it connected calls nobody for a partition that it has lost meanwhile."""
    async with serving() as endpoint, calling() as calls:
        asked = 0

        async def proof() -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise Revoked("partition 3 belongs to another worker now")

        request = msgspec.structs.replace(hook(endpoint.url), proof=proof)
        with pytest.raises(Revoked):
            await calls.attempt(request)
        assert endpoint.requests == []
        for _ in range(3):  # the first of these connects, the others use what is kept
            assert await calls.attempt(request) == Receipt(NAME, "sent")
        assert (asked, len(endpoint.requests)) == (2, 3)


async def test_an_endless_answer_is_cut() -> None:
    """Of a body without end a bounded part is read, the status stands, and nothing is unpacked."""
    async with serving() as endpoint, calling() as calls:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
            await response.prepare(request)
            for _ in range(1_000):
                await response.write(gzip.compress(b"\0" * 1_000_000))
            return response

        endpoint.answer = answer
        receipt = await calls.attempt(hook(endpoint.url))

    assert receipt.kind == "sent"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        ({"Retry-After": "999999999999999999999"}, 999_999_999.0),
        ({"Retry-After": "Tue, 24 Nov 2026 10:01:00 GMT", "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 60.0),
        ({"Retry-After": "Tue, 24 Nov 2026 09:00:00 GMT", "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, 0.0),
        *(({"Retry-After": text}, None) for text in ("soon", "-1", "1.5", "", "٣")),
        *(
            ({"Retry-After": text, "Date": "Tue, 24 Nov 2026 10:00:00 GMT"}, None)
            for text in (
                "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
                "Tue, 24 Nov 2026 10:01:00 +99999999999999999999",
                "Tue, 24 Nov 2026 10:01:00",
            )
        ),
    ],
)
async def test_what_retry_after_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds and dates are understood, a date by the answer's own clock; anything else asks for nothing."""
    async with serving() as endpoint, calling() as calls:

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=429, headers=headers)

        endpoint.answer = answer
        receipt = await calls.attempt(hook(endpoint.url))

    assert receipt.kind == "retry"
    assert receipt.retry_after_s == seconds


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not used, so it can neither see a call nor reach what we refuse."""
    async with serving("127.0.0.2") as proxy, serving() as endpoint, calling() as calls:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        receipt = await calls.attempt(hook(endpoint.url))

    assert receipt.kind == "sent"
    assert len(endpoint.requests) == 1
    assert proxy.requests == []


async def test_uncertain_calls_are_made_again() -> None:
    """After a crash every call without an outcome is a retry: the endpoint knows repeats by the key."""
    async with calling() as calls:
        receipts = await calls.settle([hook("http://example.com")])

    assert [receipt.kind for receipt in receipts] == ["retry"]
