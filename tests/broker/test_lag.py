"""Lag: what Headrace says of its backlog is what Kafka's own tool says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from agents.engine.kafka.topics import ensure_topics
from tests.broker.kafka import Broker, BrokerUnavailableError, java_command
from tests.broker.workers import (
    ROOT,
    Site,
    Worker,
    arrivals,
    crew,
    opened,
    produce,
    purchases,
    settled,
)

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

COMMAND_S_MAX = 60
PUBLISHED_S = 2.5


def by_the_tool(site: Site) -> Counter[str]:
    """Lag per topic by kafka-consumer-groups; a topic without lag counts as none."""
    name = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    command = java_command(name, "--bootstrap-server", site.broker.address, "--describe", "--group", site.app)
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = [dict(zip(lines_head(lines), line, strict=False)) for line in lines if line[:1] == [site.app]]
    assert rows, done.stdout + done.stderr
    return +sum((Counter({row["TOPIC"]: int(row["LAG"])}) for row in rows if row["LAG"] != "-"), Counter())


def lines_head(lines: list[list[str]]) -> list[str]:
    """The names of the columns."""
    return next(line for line in lines if line[:1] == ["GROUP"])


def by_headrace(site: Site, data: str) -> Counter[str]:
    """Lag per topic by `app.py lag`, of a running worker or of a folder that nobody uses."""
    command = [sys.executable, "app.py", "lag", "--json"]
    environment = site.environment(data)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=COMMAND_S_MAX, check=True)
    assert done.stderr == b""
    return +sum((Counter({site.topic(row["topic"]): row["lag"]}) for row in json.loads(done.stdout)), Counter())


async def test_lag_is_what_kafkas_own_tool_says(broker: Broker, tmp_path: Path) -> None:
    """Nothing when all is done, and the very backlog when a worker was stopped and events went on arriving."""
    try:
        java_command("unused")
    except BrokerUnavailableError as missing:
        pytest.skip(f"no kafka-consumer-groups here: {missing}")
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("data"))
    async with crew() as workers:
        workers.append(Worker(site, "data"))
        await opened(workers)
        produce(site, [*arrivals(100), *purchases(400, 100, seed=51)])
        await settled(*workers)
        await workers[0].ask("flush")
        await settled(*workers)
        await asyncio.sleep(PUBLISHED_S)
        assert (by_the_tool(site), by_headrace(site, "data")) == (Counter(), Counter())
        await workers[0].stop()

    backlog = purchases(123, 100, seed=52)
    produce(site, backlog)
    events = site.topic("events")
    assert by_the_tool(site) == {events: len(backlog)}
    assert by_headrace(site, "data") == {events: len(backlog)}
