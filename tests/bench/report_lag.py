"""How far a live report is behind the records that exports can read, while events come at a steady rate.

`python -m tests.bench.report_lag --rates 1000,5000 --transports embedded,kafka`; the last line on stdout is JSON. One
event in ten enters a campaign, half of whose users are its control group; the others get a webhook, into the outbox.
A look at the report says how many entered. The lag then is the age of the oldest entry that was committed to
`currents` and that the report does not know of yet; 0 where it knows of all.
"""

import argparse
import asyncio
import json
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import uvloop
from confluent_kafka import OFFSET_END, Consumer, Message, TopicPartition

from agents.node import Node
from agents.web.control import ControlClient
from config.clock import SystemClock
from config.logging import set_up_logging
from config.settings import Settings
from streams import topics
from streams.codec import partition_of
from streams.exports import event_type_of
from streams.records import Output
from tables.store import Batch
from tests.bench.on_kafka import Door, Site
from tests.bench.subject import Plan, percentiles
from tests.bench.workload import Entry, write_workspace
from tests.broker.kafka import Broker

ALLOWED_S: Final = 2.0
CAMPAIGN: Final = "hook"
COUNTED: Final = ("users.messages.webhook.Send", "users.campaigns.EnrollInControl")
ENTERS_EVERY: Final = 10
LOOK_S: Final = 0.02
TURN_S: Final = 0.005
SETTLE_S: Final = 2.0
WARM_S: Final = 2.0
USERS: Final = 5_000
FILES: Final = {
    "campaigns/hook.yaml": {
        "name": CAMPAIGN,
        "trigger": {"event": {"name": "go"}},
        "channel": "webhook",
        "re_eligible_after": "0s",
        "control": 50,
        "variants": [{"name": name, "percent": 25, "message": {"body": "{{ ${user_id} }}"}} for name in "ab"],
        "conversions": [{"name": "again", "event": {"name": "go"}, "within": "1h"}],
    }
}

Send = Callable[[Sequence[Entry]], Awaitable[None]]
Report = Callable[[], Awaitable[dict[str, Any]]]


class Commits:
    """When each entry's record was committed, in order."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def note(self, event_types: Sequence[str]) -> None:
        """These have just become readable."""
        now = time.perf_counter()
        self.times += [now for each in event_types if each in COUNTED]

    def lag_s(self, known: int, now: float) -> float:
        """The age of the oldest entry beyond so many."""
        committed = bisect_right(self.times, now)
        return max(0.0, now - self.times[known]) if known < committed else 0.0


def entries(rate: int, seconds: float, partitions: int) -> list[Entry]:
    """Events of a rate for a while; every tenth enters the campaign."""
    found = []
    for at in range(round(rate * seconds)):
        user = f"user-{at * 7919 % USERS}"
        name = "view" if at % ENTERS_EVERY else "go"
        body = {"type": "event", "name": name, "external_id": user, "properties": {"at": at}}
        found.append(Entry(partition_of(user.encode(), partitions), user.encode(), json.dumps(body).encode()))
    return found


async def send_on_schedule(events: Sequence[Entry], rate: int, send: Send) -> None:
    """Send what is due, whatever the system does."""
    began, at = time.perf_counter(), 0
    while at < len(events):
        until = min(len(events), int((time.perf_counter() - began) * rate) + 1)
        if until > at:
            await send(events[at:until])
            at = until
        await asyncio.sleep(TURN_S)


async def watch(report: Report, commits: Commits, stop: asyncio.Event) -> list[float]:
    """Look at the report again and again: the lag at each look, whose moment is when the answer is there."""
    lags = []
    while not stop.is_set():
        answer = await report()
        known = sum(each["totals"]["sent"] + each["totals"]["control"] for each in answer["variants"])
        lags.append(commits.lag_s(known, time.perf_counter()))
        await asyncio.sleep(LOOK_S)
    return lags


async def measure(rate: int, seconds: float, commits: Commits, send: Send, report: Report) -> dict[str, Any]:
    """The figures of one rate."""
    warm = entries(rate, WARM_S, Plan(mode="latency").partitions)
    await send_on_schedule(warm, rate, send)
    stop, before = asyncio.Event(), len(commits.times)
    watching = asyncio.create_task(watch(report, commits, stop))
    began = time.perf_counter()
    await send_on_schedule(entries(rate, seconds, Plan(mode="latency").partitions), rate, send)
    took_s = time.perf_counter() - began
    stop.set()
    lags = await watching
    return {
        "rate": rate,
        "sent_per_s": round(rate * seconds / took_s),
        "entries": len(commits.times) - before,
        "looks": len(lags),
        "lag_ms": percentiles(lags),
    }


async def on_embedded(rate: int, seconds: float, folder: Path) -> dict[str, Any]:
    """A node in this process, which also makes the load."""
    workspace = write_workspace(folder / "workspace", FILES)
    node = Node(Settings(data=folder / "data", partitions=8, workspace=workspace, http=""), SystemClock())
    node.wire()
    await node.start()
    commits = Commits()
    real = node.engine.transport.commit

    async def commit(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        await real(partition, batch, outputs)
        mine = [each for each in outputs if each.topic == topics.CURRENTS.name]
        commits.note([event_type_of(each.headers, each.value) for each in mine])

    vars(node.engine.transport)["commit"] = commit

    async def send(events: Sequence[Entry]) -> None:
        outputs = [Output(topics.EVENTS.name, each.partition, each.key, each.value) for each in events]
        await node.engine.transport.append(outputs)

    async def report() -> dict[str, Any]:
        return dict(await node.campaigns.report(CAMPAIGN))

    try:
        return await measure(rate, seconds, commits, send, report)
    finally:
        await node.quiesce()
        await node.stop()


async def on_kafka(rate: int, seconds: float, folder: Path, address: str) -> dict[str, Any]:
    """A worker on a broker, watched by another client; its report is asked for over the control socket."""
    workspace = write_workspace(folder / "workspace", FILES)
    plan = Plan(mode="latency", broker=f"kafka://{address}")
    site, commits, stop = Site(plan, folder, workspace), Commits(), threading.Event()
    try:
        await site.ready()
        watcher = threading.Thread(target=_watch_currents, args=(site.app, address, plan.partitions, commits, stop))
        watcher.start()
        await asyncio.sleep(SETTLE_S)
        door = Door(site.app, address)

        async def send(events: Sequence[Entry]) -> None:
            for each in events:
                door.send(each)

        client = await ControlClient.connect(site.data)

        async def report() -> dict[str, Any]:
            return dict(await client.ask("report", {"campaign": CAMPAIGN}))

        try:
            return await measure(rate, seconds, commits, send, report)
        finally:
            client.close()
            stop.set()
            await asyncio.to_thread(watcher.join)
    finally:
        await asyncio.to_thread(site.stop)


def _watch_currents(app: str, address: str, partitions: int, commits: Commits, stop: threading.Event) -> None:
    """Note when each entry's record can be read by a committed reader."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"{app}-watch",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 5,
            "log_level": 2,
        }
    )
    topic = f"{app}.{topics.CURRENTS.name}"
    consumer.assign([TopicPartition(topic, at, OFFSET_END) for at in range(partitions)])
    while not stop.is_set():
        found = consumer.consume(500, 0.01)
        commits.note([_type_of(message) for message in found if message.error() is None])
    consumer.close()


def _type_of(message: Message) -> str:
    return str(json.loads(message.value() or b"")["event_type"])


def main() -> int:
    """Measure every rate on every transport; 1 where a report was ever more than two seconds behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.report_lag", description=__doc__)
    parser.add_argument("--rates", default="1000,5000", help="events per second, with commas between")
    parser.add_argument("--transports", default="embedded,kafka")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each")
    asked = parser.parse_args()
    set_up_logging()
    rows: dict[str, list[dict[str, Any]]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="headrace-lag-")))
        transports = asked.transports.split(",")
        address = (
            stack.enter_context(Broker.from_environment(folder / "broker")).address if "kafka" in transports else ""
        )
        for transport in transports:
            for rate in map(int, asked.rates.split(",")):
                where = folder / f"{transport}-{rate}"
                job = (
                    on_kafka(rate, asked.seconds, where, address)
                    if transport == "kafka"
                    else on_embedded(rate, asked.seconds, where)
                )
                rows.setdefault(transport, []).append(uvloop.run(job))
                print(f"{transport}: {rows[transport][-1]}", file=sys.stderr, flush=True)
    is_near = all(row["lag_ms"]["max"] <= ALLOWED_S * 1000 for found in rows.values() for row in found)
    print(json.dumps({"ok": is_near, **rows}), flush=True)
    return 0 if is_near else 1


if __name__ == "__main__":
    sys.exit(main())
