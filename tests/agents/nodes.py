"""Small nodes in the test's own process: a folder, two partitions, a clock that the test moves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.node import Node
from agents.web.control import ControlClient
from config.clock import Clock, ManualClock
from config.settings import load_settings
from streams.codec import partition_of
from streams.records import Output, Record
from tests import ports

NOW_MS = 1_764_000_000_000
PARTITIONS = 2
WAIT_S = 10.0

Files = Mapping[str, Any]


def free_port(count: int = 1) -> int:
    """The first of so many ports of loopback, in a row, that nobody uses."""
    return ports.free_port(count)


def write_workspace(folder: Path, files: Files) -> Path:
    """A workspace folder with these definitions; JSON is YAML."""
    for name, document in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), "utf-8")
    return folder


def environment(data: Path, **settings: object) -> dict[str, str]:
    """The variables of a small node on a folder, by their names without prefix."""
    values = {"data": data, "partitions": PARTITIONS, "http": "", **settings}
    return {f"HEADRACE_{name.upper()}": str(value) for name, value in values.items()}


@asynccontextmanager
async def running(data: Path, clock: Clock | None = None, **settings: object) -> AsyncIterator[Node]:
    """A started node; it is stopped whatever happens, and leaves no task behind."""
    before = asyncio.all_tasks()
    node = Node(load_settings(environment(data, **settings)), clock or ManualClock(NOW_MS))
    try:
        node.wire()
        await node.start()
        yield node
    finally:
        assert await node.stop()
    await until(lambda: asyncio.all_tasks() <= before)


async def until(holds: Callable[[], bool], seconds: float = WAIT_S) -> None:
    """Wait until something holds; fails after ten seconds, or so many."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


async def send(node: Node, *values: Mapping[str, Any] | bytes, key: bytes | None = None) -> None:
    """Put records into the events topic, as a producer does: keyed by their user, all in one append."""
    outputs = []
    for value in values:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        user = key if isinstance(value, bytes) else str(value.get("external_id", "")).encode()
        partition = partition_of(user, PARTITIONS) if user else 0
        outputs.append(Output("events", partition, user or None, data))
    await node.engine.transport.append(outputs)


async def process(node: Node, *values: Mapping[str, Any] | bytes, key: bytes | None = None) -> None:
    """Send, and wait until every agent is done."""
    await send(node, *values, key=key)
    await node.quiesce()


def event(user: str, name: str = "like", **more: object) -> dict[str, object]:
    """A custom event."""
    return {"type": "event", "external_id": user, "name": name, **more}


async def records(node: Node, topic: str) -> list[tuple[int, Record]]:
    """Everything that a topic holds, as (partition, record)."""
    found: list[tuple[int, Record]] = []
    for partition in range(PARTITIONS):
        offset = (await node.engine.transport.starts([(topic, partition)]))[topic, partition]
        while more := await node.engine.transport.look(topic, partition, offset, 1_000):
            found += [(partition, record) for record in more]
            offset = more[-1].offset + 1
    return found


async def ask(node: Node, command: str, **args: object) -> Any:  # noqa: ANN401  # the answer is JSON
    """One command over the control socket."""
    client = await ControlClient.connect(node.settings.data)
    try:
        return await client.ask(command, args)
    finally:
        client.close()
