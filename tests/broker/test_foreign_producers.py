"""Events of other people's producers: whatever partition each of them chooses, a user's record is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer

from agents.engine.kafka.topics import ensure_topics
from streams.codec import to_json
from tests.broker.kafka import Broker, BrokerUnavailableError, java_command
from tests.broker.toy import read_all
from tests.broker.workers import (
    PARTITIONS,
    Event,
    Site,
    arrivals,
    model_of,
    modelled,
    node_on,
    produce,
    purchases,
    quiet,
    remembered,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

JAVA_S_MAX = 60
KCAT_S_MAX = 30


async def produce_with_aiokafka(site: Site, events: list[tuple[str, Event]]) -> None:
    """Send with aiokafka as it comes."""
    async with AIOKafkaProducer(bootstrap_servers=site.broker.address) as producer:
        for user, event in events:
            await producer.send(site.topic("events"), to_json(event), user.encode())
        await producer.flush()


def produce_with_java(site: Site, events: list[tuple[str, Event]]) -> None:
    """Send with Kafka's own console producer as it comes."""
    own = ["--bootstrap-server", site.broker.address, "--topic", site.topic("events")]
    command = java_command("org.apache.kafka.tools.ConsoleProducer", *own, "--reader-property", "parse.key=true")
    lines = b"".join(user.encode() + b"\t" + to_json(event) + b"\n" for user, event in events)
    done = subprocess.run(command, input=lines, capture_output=True, timeout=JAVA_S_MAX, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]


def produce_with_kcat(site: Site, events: list[tuple[str, Event]]) -> None:
    """Send with kcat as it comes."""
    command = ["kcat", "-P", "-b", site.broker.address, "-t", site.topic("events"), "-K", "\t"]
    lines = b"".join(user.encode() + b"\t" + to_json(event) + b"\n" for user, event in events)
    done = subprocess.run(command, input=lines, capture_output=True, timeout=KCAT_S_MAX, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]


def need_producers() -> None:
    """Skip where a program is missing; CI installs them, so there it is a failure."""
    missing = ""
    try:
        java_command("unused")
    except BrokerUnavailableError as error:
        missing = f"no console producer here: {error}"
    if shutil.which("kcat") is None:
        missing = "kcat is not installed (on Debian: apt-get install kcat)"
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


async def partitions_of_users(site: Site) -> dict[bytes, set[int]]:
    """Where the records of each user lie."""
    found = defaultdict(set)
    for partition in range(PARTITIONS):
        for record in await read_all(site.broker.address, site.topic("events"), partition):
            found[record.key].add(partition)
    return found


async def test_four_clients_at_their_defaults_give_one_writers_profile(broker: Broker, tmp_path: Path) -> None:
    """librdkafka, aiokafka, Java and kcat spread the same users differently; counts, sums and segments are one's."""
    need_producers()
    site, addresses, events = Site(broker, tmp_path), arrivals(80), purchases(900, 80, seed=41)
    await ensure_topics(site.settings("data"))
    stock = Producer({"bootstrap.servers": broker.address})  # consistent_random: crc32 of the key
    async with node_on(site) as node:
        produce(site, addresses, stock)
        await asyncio.gather(
            asyncio.to_thread(produce, site, events[::4], stock),
            produce_with_aiokafka(site, events[1::4]),
            asyncio.to_thread(produce_with_java, site, events[2::4]),
            asyncio.to_thread(produce_with_kcat, site, events[3::4]),
        )
        await quiet(node)
        assert node.queries.totals()["dead_letters"] == 0

    assert await remembered(site) == modelled(model_of(addresses + events))
    spread = await partitions_of_users(site)
    assert len(spread) == len(addresses)
    assert sum(len(places) > 1 for places in spread.values()) > len(addresses) // 2
