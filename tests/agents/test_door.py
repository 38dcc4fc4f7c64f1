"""The door over real HTTP: what it takes is in the events topic before it answers, and it says what it refused."""

import json
import socket
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings

KEY = "a-test-key"


class Caller:
    """Somebody with the key, unless the call says otherwise."""

    def __init__(self, address: str, session: aiohttp.ClientSession, node: Node) -> None:
        self.node = node
        self._address = address
        self._session = session

    async def track(self, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
        url = f"http://{self._address}/users/track"
        async with self._session.post(url, data=BytesIO(data), headers=sent) as response:
            return response.status, json.loads(await response.text() or "{}")


@pytest.fixture
async def caller(tmp_path: Path) -> AsyncIterator[Caller]:
    """A running node with a door, and somebody in front of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_HTTP": address, "HEADRACE_API_KEY": KEY})
    node = Node(settings, SystemClock())
    node.wire(door=True)
    await node.start()
    async with aiohttp.ClientSession() as session:
        yield Caller(address, session, node)
    await node.stop()


async def test_what_is_taken_is_applied_and_what_is_not_is_said(caller: Caller) -> None:
    """Good objects of a body are in the users' rows; each bad one is named by its array and index."""
    status, answer = await caller.track(
        {
            "attributes": [{"external_id": "a", "first_name": "Ann"}, {"first_name": "nobody"}],
            "events": [{"external_id": "a", "name": "e"}, {"external_id": "b", "name": "e", "time": "never"}],
            "purchases": [{"external_id": "b", "product_id": "p", "currency": "USD", "price": 2.5}],
        }
    )
    await caller.node.quiesce()
    assert status == 201
    counted = {name: answer[name] for name in answer if name.endswith("_processed")}
    assert counted == {"attributes_processed": 1, "events_processed": 1, "purchases_processed": 1}
    assert [(each["input_array"], each["index"]) for each in answer["errors"]] == [("attributes", 1), ("events", 1)]
    assert "external_id" in answer["errors"][0]["type"]
    ann = await caller.node.ask("user", {"external_id": "a"})
    assert ann["attributes"] == {"first_name": "Ann"}
    assert ann["events"]["e"]["count"] == 1
    assert (await caller.node.ask("user", {"external_id": "b"}))["money"] == {"USD": "2.5"}
    assert (await caller.node.ask("totals", {}))["dead_letters"] == 0


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"events": []}, {"Authorization": "Bearer other"}, 401),
        ({"events": []}, {"Authorization": KEY}, 401),
        ({"events": []}, {"Content-Type": "text/plain"}, 415),
        (b"{", {}, 400),
        (b"\xff{}", {}, 400),
        (b"[" * 100_000, {}, 400),
        ({}, {}, 400),
        ({"events": [{"name": "no user"}]}, {}, 400),
        ({"events": [{"external_id": "a", "name": "e"}] * 76}, {}, 400),
        (b'{"events": ["' + b"x" * 5_000_000 + b'"]}', {}, 413),
    ],
)
async def test_what_the_door_refuses(caller: Caller, body: object, headers: dict[str, str], status: int) -> None:
    """A request without the key, of another type, too large or with nothing usable is refused and leaves nothing."""
    found, answer = await caller.track(body, **headers)
    assert found == status
    assert answer["message"]
    assert KEY not in str(answer)
    assert not any((await caller.node.log.ends([("events", at) for at in range(8)])).values())


async def test_a_made_key_is_said_once_and_kept_as_a_hash(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a given key one is made at the first start; later starts are silent, and the folder cannot tell it."""
    from agents.web.keys import Keys

    Keys(tmp_path, None)
    said = capfd.readouterr().err
    key = said.rpartition(" ")[2].strip()
    again = Keys(tmp_path, None)
    assert again.allow(f"Bearer {key}")
    assert not again.allow(f"Bearer {key}x")
    assert not capfd.readouterr().err
    stored = (tmp_path / "api-key.sha256").read_text()
    assert key not in stored
    assert (tmp_path / "api-key.sha256").stat().st_mode & 0o777 == 0o600
