"""How long a transactional send takes, event to provider, alone and while a fan-out of the same channel drains.

`python -m tests.bench.lanes`: by what the worker computes (`own_time.py`), so that neighbours on the machine do not
matter. The provider is slow, and takes as much at once as the mail server's does; the last line on stdout is JSON.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import agents.node
from agents.delivery.providers import providers_of
from agents.node import Node
from channels.channel import Provider, Receipt, Request
from channels.smtp import Smtp
from config.settings import Settings
from streams import topics
from streams.codec import partition_of, to_json
from streams.engagement import SigningKeys
from streams.records import Output
from tests.bench import providers
from tests.bench.own_time import OwnClock, OwnTimeLoop
from tests.bench.subject import percentiles
from tests.simulation.runtime import Unwatched, replaced, stopwatches

ALLOWED_MS: Final = 250.0
SLOW_S: Final = 0.02
WARM: Final = 20


class Slow:
    """A provider that takes a while, and notes when which message came."""

    name = "slow"
    limits = Smtp.limits

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self.came: dict[int, float] = {}
        self.bulk = 0

    async def attempt(self, request: Request) -> Receipt:
        """Sent, after a while."""
        found = request.body.partition(b"probe=")[2].partition(b"=")[0]
        if found:
            self.came[int(found)] = self._now_s()
        else:
            self.bulk += 1
        await asyncio.sleep(SLOW_S)
        return Receipt(request.dispatch_id, "sent")

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Nothing was under way."""
        return [Receipt(request.dispatch_id, "held") for request in requests]

    async def close(self) -> None:
        """Nothing is open."""


async def measure(asked: argparse.Namespace, folder: Path, slow: Slow, loop: OwnTimeLoop) -> dict[str, Any]:
    """Probes alone, then probes in front of a backlog that was put into the topic at once."""
    plan = providers.Plan("email", users=asked.backlog)
    settings = providers.settings_of(plan, folder, 1)
    node = Node(settings, OwnClock(loop, time.time_ns() // 1_000_000))
    node.wire()
    await node.start()
    await append(node, [each for at, each in enumerate(providers.outputs(plan)) if at % 2 == 0])  # rows, no event
    await node.quiesce()
    await probes(node, asked, slow, loop, 0, WARM)
    alone = await probes(node, asked, slow, loop, WARM, asked.probes)
    await append(node, list(providers.fan_out(plan, node.workspaces.latest_version)))
    began_s, before = loop.time(), slow.bulk
    beside = await probes(node, asked, slow, loop, WARM + asked.probes, asked.probes)
    bulk, seconds = slow.bulk - before, loop.time() - began_s
    left = asked.backlog - slow.bulk
    await node.stop()
    return {
        "backlog": asked.backlog,
        "left_at_the_end": left,
        "bulk_per_s": round(bulk / seconds),
        "alone_ms": percentiles(alone),
        "beside_ms": percentiles(beside),
        "allowed_ms": ALLOWED_MS,
        "holds": percentiles(beside)["p99"] <= ALLOWED_MS and left > 0,
    }


async def probes(
    node: Node, asked: argparse.Namespace, slow: Slow, loop: OwnTimeLoop, first: int, count: int
) -> list[float]:
    """Events on a schedule that never waits for the worker; how long after its time each one's message came."""
    began, due = loop.time(), dict[int, float]()
    for at in range(first, first + count):
        due[at] = began + (at - first) / asked.per_s
        await asyncio.sleep(max(0.0, due[at] - loop.time()))
        user = f"user-{at:07d}"
        body = {"type": "event", "name": providers.GO, "external_id": user, "properties": {"order": f"probe={at}="}}
        place = partition_of(user.encode(), node.settings.partitions)
        await append(node, [Output(topics.EVENTS.name, place, user.encode(), to_json(body))])
    while not due.keys() <= slow.came.keys():  # noqa: ASYNC110  # the provider tells nobody
        await asyncio.sleep(0.01)
    return [slow.came[at] - due[at] for at in due]


async def append(node: Node, everything: list[Output]) -> None:
    """Put records into the log, in portions."""
    for at in range(0, len(everything), 1_000):
        await node.log.append(everything[at : at + 1_000])


def main(argv: list[str] | None = None) -> int:
    """Measure in a folder of its own; 1 where transactional sends waited for longer than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backlog", type=int, default=20_000, help="bulk sends that lie in the topic")
    parser.add_argument("--probes", type=int, default=400)
    parser.add_argument("--per-s", type=float, default=50.0, help="probes per second")
    asked = parser.parse_args(argv)
    loop = OwnTimeLoop()
    asyncio.set_event_loop(loop)
    slow = Slow(loop.time)

    def with_slow(settings: Settings, keys: SigningKeys) -> dict[str, Provider]:
        return {**providers_of(settings, keys), "email": slow}

    with (
        tempfile.TemporaryDirectory(prefix="headrace-lanes-") as folder,
        replaced(
            [
                (agents.node, "providers_of", with_slow),
                (agents.node, "Watchdog", Unwatched),
                *stopwatches(loop.time),
            ]
        ),
    ):
        found = loop.run_until_complete(measure(asked, Path(folder), slow, loop))
    loop.close()
    print(json.dumps(found))
    return int(not found["holds"])


if __name__ == "__main__":
    sys.exit(main())
