"""Keys with scopes: what they open, for how long, in every process, and that nobody but their owner has them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from agents.web import campaigns_page, imports, key_ring
from agents.web.door import ENDPOINTS
from agents.web.gate import refusal
from agents.web.key_ring import KeyRing, ask_ring, make_key
from agents.web.keys import Keys
from config.clock import ManualClock, SystemClock
from config.settings import load_settings
from streams.api_keys import KEYS_MAX, SCOPES, ApiKey, new_key, read_keys
from streams.errors import BadSetting, BadState
from streams.records import Record
from tests.agents.nodes import NOW_MS, ask, environment, free_port, records, running, until

FULL = "the-full-key"
BODY = {"events": [{"external_id": "a", "name": "x"}]}


async def made(node: Node, *scopes: str, name: str = "test") -> tuple[str, str]:
    """A new key, as `keys create` makes it: its id and its text."""
    key, told = make_key(name, list(scopes))
    await ask(node, "keys_create", **told)
    return str(key["id"]), str(key["key"])


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A running node with a door."""
    settings = load_settings(environment(tmp_path, http=f"127.0.0.1:{free_port()}", api_key=FULL))
    found = Node(settings, SystemClock())
    found.wire(door=True)
    await found.start()
    yield found
    await found.stop()


async def track(node: Node, key: str) -> tuple[int, dict[str, Any]]:
    """What the door answers to an event with a key."""
    url, headers = f"http://{node.settings.http}/users/track", {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=BODY, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_key_opens_what_its_scopes_say_until_it_is_revoked(node: Node) -> None:
    """With the permission 201, with others 403, unknown or revoked 401; the full key opens everything."""
    key_id, good = await made(node, "users.track", "campaigns.list")
    _, other = await made(node, "campaigns.list")
    assert (await track(node, good))[0] == 201
    assert await track(node, other) == (403, {"message": "Access Denied"})
    assert await track(node, good[:-1]) == (401, {"message": "Invalid API key"})
    assert (await track(node, FULL))[0] == 201
    await ask(node, "keys_revoke", id=key_id)
    assert (await track(node, good))[0] == 401
    assert (await track(node, other))[0] == 403


async def test_no_key_is_kept_anywhere(node: Node) -> None:
    """Neither the topic, nor the list, nor any file of the folder holds the text of a key."""
    _, key = await made(node, "users.track", name="shop")
    await track(node, key)
    listed = await ask(node, "keys_listed")
    secret = key.rpartition("_")[2]
    assert [each["name"] for each in listed] == ["shop"]
    assert listed[0]["last_used"] is not None
    assert secret not in json.dumps(listed)
    assert all(secret.encode() not in record.value for _, record in await records(node, "keys"))
    data = node.settings.data
    files = await asyncio.to_thread(lambda: [path for path in data.rglob("*") if path.is_file()])
    assert len(files) > 3
    assert not [path for path in files if secret.encode() in await asyncio.to_thread(path.read_bytes)]


async def test_keys_outlive_the_process_and_are_made_without_one(tmp_path: Path) -> None:
    """A key that was made in a folder that nobody ran opens the door of the next process, and one revoked does not."""
    data = tmp_path / "data"
    folder = Node(load_settings(environment(data)), ManualClock(NOW_MS))
    await folder.connect()
    kept, told = make_key("kept", ["users.track"])
    gone, told_too = make_key("gone", ["users.track"])
    await folder.ask("keys_create", told)
    await folder.ask("keys_create", told_too)
    await folder.ask("keys_revoke", {"id": gone["id"]})
    await folder.disconnect()
    async with running(data) as node:
        keys = Keys(data, FULL, node.key_ring)
        assert keys.verdict(f"Bearer {kept['key']}", "users.track") == "allowed"
        assert keys.verdict(f"Bearer {gone['key']}", "users.track") == "unknown"


async def test_every_process_hears_of_keys_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring of another process knows a key, and that it was revoked, by following the topic, through errors of it."""
    monkeypatch.setattr(key_ring, "FOLLOW_S", 0.01)
    async with running(tmp_path) as node:
        other = KeyRing(node.log, ManualClock(NOW_MS))
        keys = Keys(tmp_path, FULL, other)
        following = asyncio.create_task(other.follow((OSError,)))
        made_key, told = make_key("far", ["campaigns.list"])
        bearer = f"Bearer {made_key['key']}"
        await node.key_ring.create(**told)
        await until(lambda: keys.verdict(bearer, "campaigns.list") == "allowed")
        monkeypatch.setattr(other, "_log", Broken())
        await asyncio.sleep(0.05)
        assert keys.verdict(bearer, "campaigns.list") == "allowed"
        monkeypatch.setattr(other, "_log", node.log)
        await ask_ring(node.key_ring, "keys_revoke", {"id": made_key["id"]})
        await until(lambda: keys.verdict(bearer, "campaigns.list") == "unknown")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class Broken:
    """A log that is away."""

    async def ends(self, places: object) -> dict[Any, int]:
        raise ConnectionError


async def test_what_cannot_be_a_key_is_refused_in_words(tmp_path: Path) -> None:
    """Unknown scopes, none, odd names and ids, too many keys, and revoking what is no key: each names its fix."""
    async with running(tmp_path) as node:
        for name, scopes, said in (
            ("n", ["users.trak"], "users.track"),
            ("n", [], "--scope"),
            ("", ["users.track"], "--name"),
        ):
            with pytest.raises(BadSetting, match=said):
                await ask(node, "keys_create", **make_key(name, scopes)[1])
        with pytest.raises(BadSetting, match="keys create"):
            await ask(node, "keys_create", id="x", name="n", scopes=["users.track"], hash="y")
        with pytest.raises(BadSetting, match="keys list"):
            await ask(node, "keys_revoke", id="000000000000")
        with pytest.raises(BadSetting, match="keys_revoke"):
            await ask_ring(node.key_ring, "keys_revoke", {"name": "n"})
    key = ApiKey("a" * 12, "n", ("users.track",), "b" * 64, 1)
    known = {f"{number:012x}": key for number in range(KEYS_MAX)}
    with pytest.raises(BadSetting, match=str(KEYS_MAX)):
        new_key(known, key)
    with pytest.raises(BadState, match="offset 3"):
        read_keys({}, [Record(3, 1, None, b"{}")])


def test_every_gate_asks_for_a_permission_that_exists() -> None:
    """The scopes that endpoints ask for are among those that a key can have."""
    assert refusal.__module__ == "agents.web.gate"
    served = re.compile(r"_serve\(\"([a-z_.]+)\"")
    asked = set(served.findall(Path("agents/web/campaigns_api.py").read_text("utf-8")))
    asked |= {endpoint.scope for endpoint in ENDPOINTS} | {imports.SCOPE, campaigns_page.SCOPE}
    assert {"users.track", "users.identify", "campaigns.list"} <= asked
    assert asked <= SCOPES
