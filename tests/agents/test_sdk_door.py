"""The SDK's door over real HTTP: who may send, what is answered, and that a public id opens nothing else."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from agents.web import sdk
from agents.web.buckets import Buckets
from config.clock import SystemClock
from config.settings import SettingsError, load_settings
from tests.agents.nodes import environment, free_port, records

APP = "5e1f0c3a-web"
KEY = "a-rest-key-of-the-test"
DEVICE = "00000000-0000-4000-8000-000000000001"
SHOP = "https://shop.example"


def batch(*items: Mapping[str, Any], app: str = APP, device: str = DEVICE) -> dict[str, Any]:
    """A body as the SDK sends it."""
    return {"app_id": app, "device_id": device, "items": list(items)}


def event(number: int, **more: object) -> dict[str, Any]:
    """An item."""
    return {"id": f"i{number}", "type": "event", "name": "viewed", **more}


class Visitor:
    """A page in front of a running node."""

    def __init__(self, node: Node, session: aiohttp.ClientSession) -> None:
        self.node = node
        self.url = f"http://{node.settings.http}"
        self.session = session

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> aiohttp.ClientResponse:
        data = body if isinstance(body, bytes) else json.dumps(body)
        sent = {"Content-Type": "text/plain;charset=UTF-8", **{k.replace("_", "-"): v for k, v in headers.items()}}
        response = await self.session.request(method, self.url + path, data=data, headers=sent)
        await response.read()
        return response

    async def track(self, body: object, **headers: str) -> aiohttp.ClientResponse:
        return await self.call("POST", "/sdk/v1/track", body, **headers)

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [((each.key or b"").decode(), json.loads(each.value)) for _, each in await records(self.node, "events")]


@pytest.fixture
async def visitor(tmp_path: Path) -> AsyncIterator[Visitor]:
    """A node whose SDK endpoint takes one app, from its own origin and from one shop."""
    own = {"app_ids": APP, "cors_origins": SHOP, "sdk_protected": "tier", "api_key": KEY}
    settings = load_settings(environment(tmp_path, http=f"127.0.0.1:{free_port()}", **own))
    node = Node(settings, SystemClock())
    node.wire(door=True)
    await node.start()
    async with aiohttp.ClientSession() as session:
        yield Visitor(node, session)
    await node.stop()


async def test_items_are_in_the_log_before_the_answer_and_faults_are_told(visitor: Visitor) -> None:
    """Good items lie in the events topic, keyed by device or user, in their order; bad ones are named for good."""
    items = [
        event(0),
        event(1, name=""),
        {"id": "i2", "type": "attributes", "attributes": {"tier": "gold"}},
        event(3, external_id="mel"),
    ]
    answer = await visitor.track(batch(*items))
    said = await answer.json()
    assert (answer.status, said["accepted"]) == (200, 2)
    assert [(fault["id"], fault["reason"]) for fault in said["errors"]] == [
        ("i1", "wrong_type"),
        ("i2", "protected_attribute"),
    ]
    found = await visitor.events()
    assert sorted(key for key, _ in found) == sorted([f"device:{DEVICE}", "mel"])
    assert {value["device_id"] for _, value in found} == {DEVICE}


async def test_the_same_batch_twice_counts_once(visitor: Visitor) -> None:
    """A batch that was not answered and is sent again changes nothing: items are recognised by their ids."""
    body = batch(event(0, external_id="mel"), event(1, external_id="mel"))
    for _ in range(3):
        assert (await visitor.track(body)).status == 200
    await visitor.node.quiesce()
    found = visitor.node.queries.user("mel")
    assert found is not None
    assert found["events"]["viewed"]["count"] == 2
    assert visitor.node.queries.totals()["duplicates"] == 4


async def test_an_app_id_is_no_rest_key_and_a_rest_key_no_app_id(visitor: Visitor) -> None:
    """Neither opens the other's door, in any place that either could be put; and no process takes one for both."""
    for token in (APP, f"Bearer {APP}", f"Basic {APP}"):
        answer = await visitor.call("POST", "/users/track", {"events": [{}]}, Authorization=token)
        assert answer.status == 401
    answer = await visitor.track(batch(event(0), app=KEY))
    assert answer.status == 401
    answer = await visitor.track(batch(event(0), app="other-app"), Authorization=f"Bearer {KEY}")
    assert answer.status == 401
    assert KEY not in await answer.text()
    assert await visitor.events() == []
    with pytest.raises(SettingsError, match="HEADRACE_APP_IDS"):
        load_settings({"HEADRACE_API_KEY": "one-for-both", "HEADRACE_APP_IDS": "x-or-more,one-for-both"})


@pytest.mark.parametrize("body", [batch(event(0)), b"{", b"\xff"])
async def test_no_app_takes_anything_unless_it_is_named(tmp_path: Path, body: object) -> None:
    """Without HEADRACE_APP_IDS every batch is refused, whatever it names."""
    settings = load_settings(environment(tmp_path, http=f"127.0.0.1:{free_port()}", api_key=KEY))
    node = Node(settings, SystemClock())
    node.wire(door=True)
    await node.start()
    async with aiohttp.ClientSession() as session:
        answer = await Visitor(node, session).track(body)
        assert answer.status in (400, 401)
        assert await Visitor(node, session).events() == []
    await node.stop()


async def test_cross_origin_pages_need_the_setting(visitor: Visitor) -> None:
    """The named origin and the door's own may send and read the answer; another is refused, preflight included."""
    own = visitor.url
    for origin, allowed in ((SHOP, True), (own, True), ("https://evil.example", False), ("null", False), ("x", False)):
        before = len(await visitor.events())
        asked = await visitor.call("OPTIONS", "/sdk/v1/track", Origin=origin, Access_Control_Request_Method="POST")
        sent = await visitor.track(batch(event(before)), Origin=origin)
        for answer in (asked, sent):
            assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None), origin
            assert "Access-Control-Allow-Credentials" not in answer.headers
        assert (asked.status, sent.status) == ((204, 200) if allowed else (403, 403))
        assert len(await visitor.events()) - before == allowed
    refused = await visitor.track(b"{", Origin=SHOP)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (400, SHOP)
    assert refused.headers["Vary"] == "Origin"


async def test_every_other_path_answers_no_other_origin(visitor: Visitor) -> None:
    """CORS opens the SDK's endpoint alone: the REST door lets no foreign page read or ask."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", "Origin": SHOP}
    async with visitor.session.post(
        f"{visitor.url}/users/track", data=b'{"events":[{"external_id":"a","name":"x"}]}', headers=headers
    ) as answer:
        assert answer.status == 201
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await visitor.call("OPTIONS", "/users/track", Origin=SHOP)).status == 405


async def test_limits_are_told_and_nothing_is_taken_beyond_them(visitor: Visitor) -> None:
    """A large body, a packed one, many items, another type, an odd device, and too many requests of one device."""
    large = json.dumps(batch(event(0, properties={"text": "x" * sdk.BODY_BYTES_MAX}))).encode()
    assert (await visitor.track(large)).status == 413
    assert (await visitor.track(gzip.compress(large), Content_Encoding="gzip")).status == 413
    assert (await visitor.track(batch(*[event(n) for n in range(101)]))).status == 400
    assert (await visitor.track(batch(event(0)), Content_Type="text/html")).status == 415
    assert (await visitor.track(batch(event(0), device="x"))).status == 400
    assert await visitor.events() == []
    burst = int(sdk.DEVICE_BURST)
    answers = [await visitor.track(batch(event(n))) for n in range(burst + 5)]
    late = [answer for answer in answers if answer.status == 429]
    assert late
    assert int(late[0].headers["Retry-After"]) >= 1
    assert (await visitor.track(batch(event(0), device="another-device"))).status == 200


async def test_a_slow_body_loses_its_place(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that trickles in is answered 408, so that slow pages hold no place for long."""
    monkeypatch.setattr(sdk, "BODY_S_MAX", 0.2)
    host, _, port = visitor.node.settings.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /sdk/v1/track HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n{")
    head = await asyncio.wait_for(reader.read(100), 10)
    writer.close()
    assert head.split()[1] == b"408"


async def test_the_file_is_served_to_every_page_and_cached_by_its_hash(visitor: Visitor) -> None:
    """The committed file, byte by byte, with a type that browsers run and a tag that spares its second way."""
    answer = await visitor.call("GET", "/sdk/headrace.js")
    assert await answer.read() == sdk.FILE.read_bytes()
    assert answer.content_type == "text/javascript"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = await visitor.call("GET", "/sdk/headrace.js", If_None_Match=answer.headers["ETag"])
    assert (again.status, await again.read()) == (304, b"")


def test_buckets_fill_with_time_and_forget_the_least_recent() -> None:
    """A key gets its burst, then its rate; the wait that is told is enough; memory is bounded."""
    buckets = Buckets(rate_per_s=2, burst=3, keys_max=2)
    assert [buckets.take("a", 0.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("a", 0.5) == 0
    assert buckets.take("a", 0.4) > 0  # a clock that went back gives nothing
    buckets.take("b", 1.0)
    buckets.take("c", 1.0)
    assert buckets.take("a", 1.0) == 0  # forgotten, so full again
