"""`POST /users/identify` over real HTTP: devices become known users, and what cannot be is said."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agents.node import Node
from config.clock import SystemClock
from config.settings import load_settings
from streams.identify_request import DEVICES_MAX, NOTHING_TO_IDENTIFY, TOO_MANY_IDS
from tests.agents.nodes import ask, environment, free_port, process, records
from tests.agents.test_keys import FULL, made

LIKE = {"type": "event", "name": "like", "device_id": "d1"}
PAIR = {"device_id": "d1", "external_id": "ann"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A running node with a door."""
    settings = load_settings(environment(tmp_path, http=f"127.0.0.1:{free_port()}", api_key=FULL))
    found = Node(settings, SystemClock())
    found.wire(door=True)
    await found.start()
    yield found
    await found.stop()


async def identify(node: Node, body: object, key: str = FULL) -> tuple[int, dict[str, Any]]:
    """What the door answers to a body."""
    url, headers = f"http://{node.settings.http}/users/identify", {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_a_device_becomes_a_known_user(node: Node) -> None:
    """What the device did is the known user's; a bad pair, and Braze's other forms, are named beside it."""
    await process(node, LIKE)
    status, answer = await identify(
        node,
        {
            "devices_to_identify": [
                PAIR,
                {"device_id": "no good", "external_id": "ann"},
                {"device_id": "d2"},
                {"device_id": "d3", "external_id": "device:d1"},
            ],
            "aliases_to_identify": [{"external_id": "ann", "user_alias": {"alias_name": "a", "alias_label": "b"}}],
        },
    )
    await node.quiesce()

    assert (status, answer["message"], answer["devices_processed"]) == (201, "success", 1)
    refused = [(each["input_array"], each["index"]) for each in answer["errors"]]
    assert refused == [*(("devices_to_identify", at) for at in (1, 2, 3)), ("aliases_to_identify", 0)]
    assert (await ask(node, "user", external_id="ann"))["events"]["like"]["count"] == 1
    assert (await ask(node, "totals"))["dead_letters"] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, NOTHING_TO_IDENTIFY),
        ({"emails_to_identify": [{"external_id": "a", "email": "a@example.com"}]}, NOTHING_TO_IDENTIFY),
        ({"devices_to_identify": [PAIR] * (DEVICES_MAX + 1)}, TOO_MANY_IDS),
        ({"devices_to_identify": 1}, "Expected `array`"),
    ],
)
async def test_a_body_with_nothing_to_take_is_refused(node: Node, body: object, said: str) -> None:
    """Nothing of it reaches the log, and the answer says what is wrong."""
    status, answer = await identify(node, body)

    assert status == 400
    assert said in answer["message"]
    assert not await records(node, "events")


async def test_identifying_has_a_permission_of_its_own(node: Node) -> None:
    """A key for tracking does not open it, one for identifying does."""
    _, track = await made(node, "users.track")
    _, other = await made(node, "users.identify")

    assert (await identify(node, {"devices_to_identify": [PAIR]}, track))[0] == 403
    assert (await identify(node, {"devices_to_identify": [PAIR]}, other))[0] == 201
    assert (await identify(node, {"devices_to_identify": [PAIR]}, "no key"))[0] == 401
