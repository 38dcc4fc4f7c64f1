"""How many messages a second leave one process: a backlog of decided sends, delivered to a minimal local provider.

Run as `python -m tests.bench.providers '<JSON of Plan>'`; the last line on stdout is the result as JSON. Everything
that a send costs is in: reading it, consent, rendering, its record before and after, the call, the outcome folded into
the user's row, and its export. Nothing of what comes before it is.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import msgspec

from agents.delivery.agent import Delivery
from agents.node import Node
from config.clock import SystemClock
from config.logging import set_up_logging
from config.settings import Settings
from streams import topics
from streams.codec import partition_of, to_json
from streams.records import Output
from streams.sends import Send
from tests.bench.subject import percentiles
from tests.bench.workload import write_workspace

GO: Final = "go"
APPEND_RECORDS: Final = 1_000
LOOK_S: Final = 0.25
CAMPAIGNS: Final[dict[str, dict[str, Any]]] = {
    "email": {
        "to": "{{ ${first_name} }} <{{ ${email_address} }}>",
        "subject": "{{ ${first_name} }}, your order {{ event_properties.${order} }} is on its way",
        "text": "Hello {{ ${first_name} | default: 'you' }},\n\nyour order {{ event_properties.${order} }} has left us."
        "\nIt goes to {{ ${home_city} }}: https://shop.example/orders/{{ event_properties.${order} }}\n\nYours\n",
        "html": "<html><body><p>Hello {{ ${first_name} | default: 'you' }},</p>"
        '<p>your order <a href="https://shop.example/orders/{{ event_properties.${order} }}">'
        "{{ event_properties.${order} }}</a> has left us. It goes to {{ ${home_city} }}.</p>"
        '<p>Yours, <a href="https://shop.example/">the shop</a></p></body></html>',
    },
    "webhook": {
        "body": '{"user": "{{ ${user_id} }}", "name": "{{ ${first_name} }}", '
        '"order": "{{ event_properties.${order} }}"}'
    },
}
Channel: TypeAlias = Literal["email", "webhook"]
CHANNELS: Final[tuple[Channel, ...]] = ("email", "webhook")
SINKS: Final = {"email": "mail", "webhook": "hooks"}


class Plan(msgspec.Struct, frozen=True):
    """What one process measures: so many users, each of whom is sent one message of a channel.

    `lanes` puts as many sends of a fan-out in front of so many events, each of which becomes a transactional send; the
    sink waits `wait_s` before each answer. Mails are `tracked` as they are by default: links, opens, one-click
    unsubscribing, bounces.
    """

    channel: Channel
    mode: Literal["drain", "lanes"] = "drain"
    users: int = 50_000
    probes: int = 500
    probes_per_s: int = 25
    wait_s: float = 0.0
    partitions: int = 8
    broker: str = "embedded://"
    cities: int = 6
    tracked: bool = True


@contextmanager
def sink(kind: str, wait_s: float = 0.0) -> Iterator["Sink"]:
    """A provider in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.sinks", kind, str(wait_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Sink(process)
        finally:
            process.kill()


class Sink:
    """Asks it what has come."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def told(self) -> dict[str, Any]:
        """What has come so far; blocks for a moment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found


def outputs(plan: Plan) -> Iterator[Output]:
    """An attributes record and an event for each user."""
    for at in range(plan.users):
        user = f"user-{at:07d}"
        place = partition_of(user.encode(), plan.partitions)
        attributes = {
            "type": "attributes",
            "external_id": user,
            "email": f"{user}@example.com",
            "first_name": f"Name{at % 1_000}",
            "home_city": f"City {at % plan.cities}",
        }
        event = {"type": "event", "name": GO, "external_id": user, "properties": {"order": at}}
        for body in (attributes, event):
            yield Output(topics.EVENTS.name, place, user.encode(), to_json(body))


def settings_of(plan: Plan, folder: Path, port: int) -> Settings:
    """A worker whose only provider is the sink."""
    campaign = {
        "name": plan.channel,
        "trigger": {"event": {"name": GO}},
        "channel": plan.channel,
        "message": CAMPAIGNS[plan.channel],
    }
    workspace = write_workspace(folder / "workspace", {f"campaigns/{plan.channel}.yaml": campaign})
    return Settings(
        broker=plan.broker,
        data=folder / "data",
        partitions=plan.partitions,
        workspace=workspace,
        http="",
        smtp=f"smtp://127.0.0.1:{port}" if plan.channel == "email" else None,
        webhook_url=f"http://127.0.0.1:{port}/hook" if plan.channel == "webhook" else None,
        http_allow="127.0.0.1/32",
        tracking_url="https://links.shop.example" if plan.tracked else None,
    )


async def decide(settings: Settings, plan: Plan) -> None:
    """Bring the folder to where every send is decided, and none is read."""
    reads = Delivery.reads
    Delivery.reads = ()
    try:
        node = Node(settings, SystemClock())
        node.wire()
        await node.start()
        await _append_all(node, list(outputs(plan)))
        await node.quiesce()
        await node.stop()
    finally:
        Delivery.reads = reads


async def deliver(settings: Settings, plan: Plan, provider: Sink) -> dict[str, Any]:
    """Let them go, and time until all have an outcome, folded and exported."""
    node = Node(settings, SystemClock())
    node.wire()
    began, cpu_began = time.perf_counter(), time.process_time()
    await node.start()
    while await node.behind() or not node.delivery.idle:  # noqa: ASYNC110  # nobody tells when all is done
        await asyncio.sleep(LOOK_S)
    await node.quiesce()
    quiet_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    states = {name: {state: n for state, n in row.items() if n} for name, row in node.queries.sends().items()}
    await node.stop()
    found = provider.told()
    assert found["distinct"] == found["taken"] == plan.users, found
    assert states == {plan.channel: {"sent": plan.users}}, states
    return {
        "channel": plan.channel,
        "tracked": plan.tracked and plan.channel == "email",
        "sends": plan.users,
        "distinct": found["distinct"],
        "sends_per_s": round(plan.users / found["seconds"]),
        "quiet_s": round(quiet_s, 2),
        "cpu_us": round(cpu_s / plan.users * 1e6, 1),
        "sink_cpu_us": round(found["cpu_s"] / plan.users * 1e6, 1),
    }


def fan_out(plan: Plan, version: int) -> Iterator[Output]:
    """A bulk send for each user, as a fan-out decides them."""
    for at in range(plan.users):
        user = f"user-{at:07d}"
        profile: dict[str, Any] = {"email_address": f"{user}@example.com", "first_name": f"Name{at % 1_000}"}
        send = Send(
            *(f"{at:032x}", plan.channel, plan.channel, user, version, time.time_ns() // 1_000_000),
            profile,
            {},
            {"order": at},
            lane="bulk",
        )
        place = partition_of(user.encode(), plan.partitions)
        yield Output(topics.sends_topic(plan.channel, "bulk"), place, user.encode(), to_json(send))


async def pass_by(settings: Settings, plan: Plan, provider: Sink) -> dict[str, Any]:
    """Transactional sends while a fan-out drains: from when each event was due to its message at the sink."""
    reads = Delivery.reads
    Delivery.reads = tuple(topic for topic in reads if topic.name not in topics.BULK)
    node = Node(settings, SystemClock())
    node.wire()
    Delivery.reads = reads
    await node.start()
    await _append_all(node, list(outputs(plan))[::2])  # rows, and no event
    await node.quiesce()
    await _append_all(node, list(fan_out(plan, node.workspaces.latest_version)))
    await node.stop()
    node = Node(settings, SystemClock())
    node.wire()
    await node.start()
    while not provider.told()["taken"]:  # noqa: ASYNC110  # another process counts
        await asyncio.sleep(0.01)
    began_ns, late = time.time_ns(), 0.0
    for at in range(plan.probes):
        due_ns = began_ns + at * 1_000_000_000 // plan.probes_per_s
        await asyncio.sleep(max(0.0, (due_ns - time.time_ns()) / 1e9))
        late = max(late, (time.time_ns() - due_ns) / 1e9)
        user = f"user-{at:07d}"
        body = {"type": "event", "name": GO, "external_id": user, "properties": {"order": f"probe={due_ns}="}}
        place = partition_of(user.encode(), plan.partitions)
        await node.log.append([Output(topics.EVENTS.name, place, user.encode(), to_json(body))])
    ages, left = list[float](), plan.users
    while len(ages) < plan.probes:
        found = provider.told()
        ages += found["ages_s"]
        left = plan.users + plan.probes - found["taken"]
        await asyncio.sleep(0.05)
    await node.stop()
    return {
        "channel": plan.channel,
        "backlog": plan.users,
        "backlog_left": left,
        "probes": len(ages),
        "event_to_sink_ms": percentiles(ages),
        "producer_late_ms": round(late * 1000, 1),
    }


async def _append_all(node: Node, everything: list[Output]) -> None:
    for at in range(0, len(everything), APPEND_RECORDS):
        await node.log.append(everything[at : at + APPEND_RECORDS])
        await asyncio.sleep(0)


async def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Decide, then deliver."""
    with sink(SINKS[plan.channel], plan.wait_s) as provider:
        settings = settings_of(plan, folder, provider.port)
        if plan.mode == "lanes":
            return await pass_by(settings, plan, provider)
        await decide(settings, plan)
        return await deliver(settings, plan, provider)


def main() -> None:
    """Measure the plan given as the first argument."""
    import uvloop

    set_up_logging()
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(uvloop.run(measure(plan, Path(folder)))), flush=True)


if __name__ == "__main__":
    main()
