"""A disk that fills up: the door closes before, and what was acknowledged is there, once, whatever happens."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from agents.node import Node
from config import metrics
from config.clock import SystemClock
from config.settings import load_settings
from streams.profiles.row import decode_row
from tests.agents.nodes import environment, free_port, running, until

ROOT = Path(__file__).parents[2]
KEY = "k"
MIB = 1024**2
DISK_BYTES = 64 * MIB
PADDING = "x" * 20_000
PATIENCE = aiohttp.ClientTimeout(total=10)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small filesystem, where mounting is allowed at all")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave_bytes: int) -> Path:
    """A file that takes all of the filesystem but so much."""
    ballast = disk / "ballast"
    found = os.statvfs(disk)
    ballast.write_bytes(b"\0" * (found.f_bavail * found.f_frsize - leave_bytes))
    return ballast


class Producer:
    """Sends one event per user over HTTP, twenty users a body, and remembers who was acknowledged."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session, self.address = session, address
        self.acknowledged: list[str] = []
        self.unsure: list[str] = []

    async def post(self) -> aiohttp.ClientResponse | None:
        """One body; None when the other side went away."""
        first = len(self.acknowledged) + len(self.unsure)
        users = [f"u{first + at}" for at in range(20)]
        events = [{"external_id": user, "name": "e", "properties": {"p": PADDING}} for user in users]
        headers = {"Authorization": f"Bearer {KEY}"}
        try:
            url = f"http://{self.address}/users/track"
            async with self._session.post(url, json={"events": events}, headers=headers) as response:
                await response.read()
        except aiohttp.ClientError:
            self.unsure += users
            return None
        (self.acknowledged if response.status == 201 else self.unsure).extend(users)
        return response

    async def ready(self) -> tuple[int, str]:
        """What the health check says."""
        async with self._session.get(f"http://{self.address}/health/ready") as response:
            return response.status, (await response.json())["status"]


@asynccontextmanager
async def door_on(data: Path, **settings: object) -> AsyncIterator[tuple[Node, Producer]]:
    """A running node with a door, and somebody in front of it."""
    address = f"127.0.0.1:{free_port()}"
    variables = environment(data, **{**settings, "http": address, "api_key": KEY})
    node = Node(load_settings(variables), SystemClock())
    node.wire(door=True)
    await node.start()
    try:
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            yield node, Producer(session, address)
    finally:
        await node.stop()


def counts_of(node: Node) -> dict[str, int]:
    """How often each user's event was applied."""
    partitions = range(node.settings.partitions)
    rows = [(name, decode_row(data)) for at in partitions for name, data in node.queries._users.raw(at)]
    return {name: user.events["e"].count for name, user in rows}


async def test_the_door_closes_before_the_disk_is_full_and_opens_again(disk: Path) -> None:
    """Below the mark the door answers 503, and health and metrics say so; with room again it opens, nothing lost."""
    fill(disk, 40 * MIB)
    settings = {"disk_free_bytes_min": 24 * MIB, "disk_free_share_min": 0}
    async with door_on(disk / "data", **settings) as (node, producer):
        assert await producer.ready() == (200, "ok")
        response = await producer.post()
        while response is not None and response.status == 201:
            await asyncio.sleep(0.05)
            response = await producer.post()
        assert response is not None
        assert (response.status, response.headers["Retry-After"]) == (503, "10")
        assert await producer.ready() == (503, "disk_low")
        assert metrics.DISK_LOW._value.get() == 1
        await node.quiesce()
        free = os.statvfs(disk)
        assert free.f_bavail * free.f_frsize > MIB, "the mark leaves room for what was taken"

        (disk / "ballast").unlink()
        await until(lambda: not node.disk.is_low())
        assert await producer.ready() == (200, "ok")
        again = await producer.post()
        assert again is not None
        assert again.status == 201
        await node.quiesce()
        applied = counts_of(node)
    assert applied == dict.fromkeys(producer.acknowledged, 1)


async def test_a_disk_is_low_until_a_quarter_more_is_free(tmp_path: Path) -> None:
    """What a probe tells decides, with a gap between closing and opening, and `send` is refused like the door."""
    from agents.disk import Disk
    from streams.errors import OutsideFailing

    free = [100]
    settings = load_settings(environment(tmp_path / "data", disk_free_bytes_min=80, disk_free_share_min=0))
    disk = Disk(settings, lambda path: (free[0], 1_000))
    seen = []
    for free[0] in (80, 79, 90, 99, 100, 85, 10):
        await disk.look()
        seen.append(disk.is_low())
    assert seen == [False, True, True, True, False, False, True]
    with pytest.raises(OutsideFailing, match="nearly full"):
        disk.refuse_if_low()


async def test_a_full_disk_ends_the_process_and_a_restart_loses_and_doubles_nothing(disk: Path) -> None:
    """Without a mark a write fails: the process says so and ends, and once there is room all acknowledged is there."""
    fill(disk, 24 * MIB)
    address = f"127.0.0.1:{free_port()}"
    variables = environment(disk / "data", http=address, api_key=KEY, disk_free_bytes_min=0, disk_free_share_min=0)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "app.py", "run", "--json"),
        cwd=ROOT,
        env={**clean, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["ready"]
    async with aiohttp.ClientSession(timeout=PATIENCE) as session:
        producer = Producer(session, address)
        for _ in range(300):
            if await producer.post() is None:
                break
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"free the disk, then start again" in errors
    assert len(producer.acknowledged) > 100

    (disk / "ballast").unlink()
    async with running(disk / "data", SystemClock()) as node:
        await node.quiesce()
        applied = counts_of(node)
    assert set(applied.values()) == {1}
    assert set(producer.acknowledged) <= set(applied) <= {*producer.acknowledged, *producer.unsure}
