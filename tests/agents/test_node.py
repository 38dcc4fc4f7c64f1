"""A whole node in this process: what it serves, what it refuses, how it starts, stops and goes on."""

import asyncio
import itertools
import json
import logging
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from prometheus_client import Gauge
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from agents import export
from config import metrics
from config.clock import ManualClock, SystemClock
from config.settings import SettingsError, load_settings
from streams.definitions import read_definitions
from streams.errors import BadSetting
from tests.agents.nodes import (
    NOW_MS,
    PARTITIONS,
    ask,
    environment,
    event,
    free_port,
    process,
    records,
    running,
    send,
    until,
    write_workspace,
)

ROOT = Path(__file__).parents[2]
MESSAGES = {
    "log": {"text": "hi"},
    "webhook": {"body": "hi"},
    "email": {"to": "{{ ${email_address} }}", "subject": "hi", "text": "hi"},
}
FILES: dict[str, Any] = {
    "segments/fresh.yaml": {"name": "fresh", "filter": {"event": {"name": "like", "within": "1s"}}},
    **{
        f"campaigns/{channel}.yaml": {
            "name": channel,
            "trigger": {"event": {"name": "like"}},
            "channel": channel,
            "message": message,
            "re_eligible_after": "0s",
        }
        for channel, message in MESSAGES.items()
    },
}
OTHER_FILES = {**FILES, "segments/old.yaml": {"name": "old", "filter": {"event": {"name": "like", "at_least": 9}}}}
# Declared for everyone, set only where Kafka is the transport.
ELSEWHERE = {
    *(
        "DOOR_OBJECTS",
        "ATTEMPTS_BROKEN",
        "TRACKING_LOST",
        "TRACKING_REFUSED",
        "COMMIT_SECONDS",
        "CHANGELOG_BYTES",
        "RESTORED_RECORDS",
        "RESTORE_REMAINING",
        "STANDBY_REMAINING",
        "STANDBY_PROMOTIONS",
    ),
    *(
        "REBALANCING",
        "WORKER_UP",
        "WORKER_RESTARTS",
        "WATCHDOG_STALLS",
        "TIMERS_NEXT",
        "EXPORT_WAITING",
        "LOG_BYTES",
        "DISK_LOW",
        "CANARY_SECONDS",
        "CANARY_WAITING_SECONDS",
        "CANARY_INTERVAL_SECONDS",
        "CANARIES_SENT",
    ),
    *("DOOR_REQUESTS", "USERS_MERGED", "LETTERS_FORWARDED", "FANOUT_USERS", "FANOUT_STEPS", "FANOUT_USERS_LEFT"),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """One window of a second and a campaign per channel, on one event."""
    return write_workspace(tmp_path / "workspace", FILES)


async def get(address: str) -> tuple[int, str]:
    """Status and text of a page."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}") as answer:
        return answer.status, await answer.text()


async def test_health_says_how_the_node_is(tmp_path: Path) -> None:
    """Live, ready and startup answer 200 while all is well, and 503 when not ready or failed."""
    http = f"127.0.0.1:{free_port()}"
    async with running(tmp_path / "data", http=http) as node:
        for page in ("live", "ready", "startup"):
            assert (await get(f"{http}/health/{page}"))[0] == 200
        node.server.ready = False
        assert [(await get(f"{http}/health/{page}"))[0] for page in ("live", "ready", "startup")] == [200, 503, 503]
        node.engine.fail(RuntimeError("planted"))
        assert (await get(f"{http}/health/live"))[0] == 503


def declared() -> dict[str, MetricWrapperBase]:
    """Every metric that config/metrics.py declares, by its name there."""
    return {name: each for name, each in vars(metrics).items() if isinstance(each, MetricWrapperBase)}


def values(metric: MetricWrapperBase) -> dict[tuple[str, str], float]:
    """The values of a metric's samples but for creation times."""
    samples = [sample for family in metric.collect() for sample in family.samples]
    return {(each.name, str(each.labels)): each.value for each in samples if not each.name.endswith("_created")}


async def test_every_declared_metric_moves_and_is_exposed(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small day in a node's life sets or increments every metric, and the exposition is what Prometheus reads."""
    monkeypatch.setattr(export, "BUFFER_BYTES_MAX", 10)
    http = f"127.0.0.1:{free_port()}"
    metrics.BUILD_INFO.clear()
    for gauge in declared().values():
        if isinstance(gauge, Gauge) and gauge._labelnames:
            gauge.clear()  # a gauge that is back at 0 does not show that it moved
    metrics.PARTITIONS_HELD.set(-1)
    metrics.PARTITIONS_WANTED.set(-1)
    metrics.LOOP_BLOCKED_SECONDS.set(-1)
    before = {name: values(metric) for name, metric in declared().items()}
    clock = ManualClock(NOW_MS)
    async with running(tmp_path / "data", clock, workspace=workspace, http=http) as node:
        await process(node, {"type": "attributes", "external_id": "ann", "email": "ann@example.com"})
        await process(node, event("ann", id="one"), event("ann", id="one"), b"no json")
        bought = {"external_id": "ann", "type": "purchase", "product_id": "p", "currency": "USD", "price": 1}
        await process(node, bought, {"type": "session_start", "external_id": "ann"})
        clock.advance(1_000)
        await until(
            lambda: metrics.TIMERS_FIRED._value.get() > before["TIMERS_FIRED"]["headrace_timers_fired_total", "{}"]
        )
        for partition in range(PARTITIONS):
            await node.dead_letters.replay(partition)
        await ask(node, "apply", definitions=msgspec.to_builtins(read_definitions(OTHER_FILES)))
        await node.quiesce()
        await node.gauges.sample()
        status, text = await get(f"{http}/metrics")

    still = {name for name, metric in declared().items() if values(metric) == before[name]}
    assert still <= ELSEWHERE
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert status == 200
    assert {family.name for metric in declared().values() for family in metric.collect()} <= set(families)
    lags = families["headrace_consumer_lag_records"].samples
    assert len(lags) == 10 * PARTITIONS  # events, mailbox, sends of three channels in two lanes, and currents twice
    assert {sample.value for sample in lags} == {0}


def test_metrics_of_kafka_and_the_door_are_set_somewhere() -> None:
    """A metric that this test cannot move is at least set in the code."""
    code = "".join(path.read_text("utf-8") for path in (ROOT / "agents").rglob("*.py"))

    assert {name for name in ELSEWHERE if not re.search(rf"metrics\.{name}\b", code)} == set()


async def test_pause_stops_a_campaign_and_resume_starts_it(tmp_path: Path, workspace: Path) -> None:
    """Between pause and resume no send of the campaign is decided; others go on."""
    async with running(tmp_path / "data", workspace=workspace) as node:
        for paused, user in ((True, "one"), (False, "two")):
            assert await ask(node, "pause", campaign="log", paused=paused) is paused
            await process(node, event(user))
        with pytest.raises(Exception, match="no campaign 'gone'"):
            await ask(node, "pause", campaign="gone", paused=True)
        await ask(node, "pause", campaign="*", paused=True)
        await process(node, event("three"))

        users = {topic: [record.key for _, record in await records(node, f"sends.{topic}")] for topic in MESSAGES}
    assert users["log"] == [b"two"]
    assert sorted(users["webhook"], key=str) == [b"one", b"two"]


async def test_a_changed_workspace_over_users_is_built_at_the_start(tmp_path: Path, workspace: Path) -> None:
    """A node that starts with another workspace brings the users it finds to it, and the same one changes nothing."""
    data = tmp_path / "data"
    async with running(data, workspace=workspace) as node:
        await process(node, event("ann"))
    likers = {"name": "likers", "filter": {"event": {"name": "like"}}}
    other = write_workspace(tmp_path / "other", {"segments/likers.yaml": likers})
    for _ in range(2):
        async with running(data, workspace=other) as node:
            await node.quiesce()
            assert list((await ask(node, "user", external_id="ann"))["segments"]) == ["likers"]
            assert node.workspaces.latest_version == 1


def command(data: Path, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a command of app.py on a folder to its end."""
    run = [sys.executable, "app.py", *arguments]
    env = environment(data, **settings)
    return subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=30)


async def test_a_second_process_on_the_folder_is_refused(tmp_path: Path) -> None:
    """While a node uses a folder, another process names the one in the way and ends with 2; so does a second node."""
    async with running(tmp_path):
        with pytest.raises(BadSetting, match=f"process {os.getpid()} uses this folder"):
            async with running(tmp_path):
                pass
        ended = await asyncio.to_thread(command, tmp_path, "run")

    assert ended.returncode == 2
    assert f"process {os.getpid()} uses this folder" in ended.stderr


def test_an_unknown_setting_is_refused() -> None:
    """A misspelt variable is named, with those that exist."""
    with pytest.raises(SettingsError, match=r"unknown HEADRACE_PARTITION; known are .*HEADRACE_PARTITIONS"):
        load_settings({"HEADRACE_PARTITION": "8"})


async def test_a_restart_in_the_middle_goes_on(
    tmp_path: Path, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped at any moment of its work and started again, a node counts and sends each event once."""
    dice = random.Random(11)
    names = (f"u{at}" for at in itertools.count())
    sent = 0
    for _ in range(12):
        async with running(tmp_path / "data", SystemClock(), workspace=workspace) as node:
            batch = [event(next(names)) for _ in range(dice.randrange(1, 150))]
            sent += len(batch)
            await send(node, *batch)
            await asyncio.sleep(dice.choice((0, 0, 0.001, 0.01, 0.05)))
            assert node.engine.failure is not None
        assert not node.engine.failure.done(), repr(node.engine.failure.result())
    async with running(tmp_path / "data", SystemClock(), workspace=workspace) as node:
        await node.quiesce()
        totals, sends = node.queries.totals(), node.queries.sends()

    hooks = (tmp_path / "data" / "outbox" / "webhook.jsonl").read_bytes().splitlines()
    assert (totals["users"], totals["custom_events"]) == (sent, sent)
    assert sends["webhook"] == {"sent": sent}
    assert len(hooks) == len({json.loads(line)["dispatch_id"] for line in hooks}) == sent
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_window_ends_though_nothing_arrives(tmp_path: Path, workspace: Path) -> None:
    """A user leaves a window of one second at its very end, by the ticker alone, and not a millisecond before."""
    clock = ManualClock(NOW_MS)
    async with running(tmp_path / "data", clock, workspace=workspace) as node:
        await process(node, event("ann"))
        letters = len(await records(node, "mailbox"))
        clock.advance(999)
        await asyncio.sleep(0.6)  # the ticker looks four times a second
        assert len(await records(node, "mailbox")) == letters
        assert node.queries.segments()["fresh"] == {"entered": 1, "left": 0, "now": 1}
        clock.advance(1)
        await until(lambda: node.queries.segments()["fresh"]["left"] == 1)
        changes = [json.loads(record.value) for _, record in await records(node, "segment-changes")]

    assert [(each["change"], each["time"][-6:]) for each in changes] == [("enter", "0.000Z"), ("leave", "1.000Z")]
