"""The door against callers that mean harm: slow ones, bombs, odd keys; and who can reach it at all."""

import asyncio
import gzip
import resource
import socket
from hmac import compare_digest
from pathlib import Path

import pytest

from agents.node import Node
from agents.web import door, keys
from agents.web.keys import Keys
from config.settings import load_settings
from tests.agents.nodes import environment, free_port, running
from tests.agents.test_door import KEY, Caller, caller

__all__ = ["caller"]
BOMB_BYTES = 512 * 1024 * 1024


def connected(address: str) -> socket.socket:
    """A connection to host:port."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


async def test_a_slow_body_loses_its_place(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that trickle in hold no place beyond the limit: they are answered 408, and others are served then."""
    monkeypatch.setattr(door, "BODY_S_MAX", 0.3)
    head = (
        f"POST /users/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    )
    slow = [connected(caller.node.settings.http) for _ in range(door.REQUESTS_MAX)]
    for each in slow:
        each.sendall(head.encode())
    await asyncio.sleep(0.1)
    assert (await caller.track({"events": []}))[0] == 429
    answers = [await asyncio.to_thread(each.recv, 100) for each in slow]
    assert {answer.split()[1] for answer in answers} == {b"408"}
    assert (await caller.track({"events": []}))[0] == 400
    for each in slow:
        each.close()


async def test_a_compressed_bomb_is_refused_while_it_is_small(caller: Caller) -> None:
    """A body of half a megabyte that unpacks to half a gigabyte is refused, and is never in memory whole."""
    bomb = await asyncio.to_thread(gzip.compress, bytes(BOMB_BYTES), 1)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, _ = await caller.track(bomb, **{"Content-Encoding": "gzip"})
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert status in (400, 413)
    assert grown_kib * 1024 < BOMB_BYTES // 4


async def test_a_key_that_is_no_text_is_a_wrong_key(caller: Caller) -> None:
    """Bytes that are no UTF-8 in the key are answered like any wrong key."""
    with connected(caller.node.settings.http) as raw:
        raw.sendall(
            b"POST /users/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n"
        )
        answer = await asyncio.to_thread(raw.recv, 100)
    assert answer.startswith(b"HTTP/1.1 401")


def test_keys_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is offered, digests of one length are compared by compare_digest, so time tells nothing of the key."""
    asked: list[tuple[str, str]] = []

    def noted(offered: str, known: str) -> bool:
        asked.append((offered, known))
        return compare_digest(offered, known)

    monkeypatch.setattr(keys, "compare_digest", noted)
    found = [Keys(tmp_path, KEY).allow(f"Bearer {offered}") for offered in ("", "a", KEY[:-1], KEY, KEY + "x" * 5_000)]
    assert found == [False, False, False, True, False]
    assert len(asked) == 5
    assert {len(text) for pair in asked for text in pair} == {64}


async def test_it_listens_on_loopback_by_default(tmp_path: Path) -> None:
    """No setting names another address, and nobody reaches the port from outside of this machine."""
    assert load_settings({}).http.startswith("127.0.0.1:")
    port = free_port()
    async with running(tmp_path, http=f"127.0.0.1:{port}"):
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]  # noqa: ASYNC240
        listening = {line.split()[1] for line in lines if line.split()[3] == "0A"}
        assert {each for each in listening if each.endswith(f":{port:04X}")} == {f"0100007F:{port:04X}"}


async def test_there_is_no_default_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two folders make two keys, and nothing that is written anywhere opens a door that got none."""
    made = []
    for name in ("one", "two"):
        node = Node(load_settings(environment(tmp_path / name, http=f"127.0.0.1:{free_port()}")), _NoClock())
        node.wire(door=True)
        made.append(capfd.readouterr().err.rpartition(" ")[2].strip())
        node.close()
    assert len(set(made)) == 2
    assert min(map(len, made)) >= 32
    for wrong in ("", "headrace", "admin", "changeme", made[1]):
        assert not Keys(tmp_path / "one", None).allow(f"Bearer {wrong}")


class _NoClock:
    def now_ms(self) -> int:
        return 0
