"""Half of the events on the embedded log, a move, the other half on Kafka: together what one life gives."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from fastavro import reader

from agents.backup import back_up
from agents.engine.kafka.log import KafkaLog
from agents.move.mover import move
from agents.node import Node
from agents.restore import restore
from config.clock import SystemClock
from streams.codec import partition_of, to_json
from streams.errors import BadState
from streams.records import Output
from tests.agents.nodes import until, write_workspace
from tests.broker.kafka import Broker
from tests.broker.workers import (
    PARTITIONS,
    WAIT_S_MAX,
    Event,
    Site,
    arrivals,
    exactly_once,
    model_of,
    modelled,
    node_on,
    produce,
    purchases,
    quiet,
    remembered,
)

USERS = 40
EMBEDDED_PARTITIONS = 3


async def take(node: Node, events: list[tuple[str, Event]]) -> None:
    """Put events into the embedded log."""
    outputs = [
        Output("events", partition_of(user.encode(), EMBEDDED_PARTITIONS), user.encode(), to_json(body))
        for user, body in events
    ]
    await node.engine.transport.append(outputs)


def exported(site: Site) -> Counter[str]:
    """The id of every exported record, as often as it stands in a file."""
    found: Counter[str] = Counter()
    for path in (site.folder / "exports").glob("event_type=*/date=*/*.avro"):
        with path.open("rb") as file:
            found.update(str(row["id"]) for row in reader(file) if isinstance(row, dict))
    return found


@pytest.mark.timeout(180)
async def test_a_move_in_the_middle_changes_nothing(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State, sends and exports are the model's, over another partition count and a move that breaks off twice."""
    site = Site(broker, tmp_path)
    first, second = purchases(150, USERS, 1), purchases(150, USERS, 2)
    embedded = {"BROKER": "embedded://", "PARTITIONS": str(EMBEDDED_PARTITIONS)}
    async with node_on(site, "old", **embedded) as node:
        await take(node, arrivals(USERS))
        await take(node, first[:100])
        await quiet(node)
        await node.export.flush()
        await node.delivery.rest()
        node.engine.slices.paused = True
        await take(node, first[100:])  # nobody has read these when it stops

    settings, append, appended = site.settings("new"), KafkaLog.append, 0

    async def weary(log: KafkaLog, outputs: list[Output]) -> None:
        nonlocal appended
        appended += 1
        if appended in (2, 5):
            await append(log, outputs[: len(outputs) // 2])
            raise ConnectionError("gone")
        await append(log, outputs)

    monkeypatch.setattr("agents.move.mover.APPEND_RECORDS", 60)
    for _ in range(2):
        monkeypatch.setattr(KafkaLog, "append", weary)
        with pytest.raises(ConnectionError):
            await move(settings, SystemClock(), tmp_path / "old")
        monkeypatch.setattr(KafkaLog, "append", append)
    with pytest.raises(BadState, match="not finished"):
        async with asyncio.timeout(60), node_on(site, "early"):
            pass
    told = await move(settings, SystemClock(), tmp_path / "old")
    assert told["users"] == USERS
    assert told["partitions"] == [EMBEDDED_PARTITIONS, PARTITIONS]

    async with node_on(site, "new") as node:
        produce(site, second)
        await quiet(node)
        assert node.queries.totals()["users"] == USERS
        assert node.queries.totals()["purchases"] == 300
        await node.export.flush()
    driver = model_of([*arrivals(USERS), *first, *second])
    assert await remembered(site) == modelled(driver)
    exactly_once(site, driver)
    ids = exported(site)
    assert set(ids.values()) == {1}
    assert len(ids) >= len(driver.currents)


@pytest.mark.timeout(180)
async def test_what_the_original_of_a_restored_folder_has_sent_is_not_sent_behind_a_move(
    broker: Broker, tmp_path: Path
) -> None:
    """Mails whose timers were still to come at the backup, and which went out since, are held by workers on Kafka."""
    like = {"event": {"name": "like"}}
    mail = {"to": "{{ ${email_address} }}", "subject": "Hi", "text": "Hello"}
    later = {"name": "later", "trigger": like, "delay": "5s", "channel": "email", "message": mail}
    workspace = write_workspace(tmp_path / "workspace", {"campaigns/later.yaml": later | {"re_eligible_after": "0s"}})
    site = Site(broker, tmp_path, more=(("WORKSPACE", str(workspace)),))
    embedded = {"BROKER": "embedded://", "PARTITIONS": str(EMBEDDED_PARTITIONS)}
    likes: list[tuple[str, Event]] = [
        (user, {"type": "event", "external_id": user, "name": "like"}) for user, _ in arrivals(USERS)
    ]
    async with node_on(site, "old", **embedded) as node:
        await take(node, arrivals(USERS))
        await take(node, likes)
        await quiet(node)
        await back_up(node.settings, node.store, SystemClock(), tmp_path / "backup")
        await until(lambda: len(site.attempted()) == USERS, WAIT_S_MAX)
    (tmp_path / "exports").rename(tmp_path / "exports-of-the-original")
    await restore(site.settings("restored", **embedded), SystemClock(), tmp_path / "backup")
    await move(site.settings("new"), SystemClock(), tmp_path / "restored")

    async with node_on(site, "new") as node:
        await until(lambda: sum(node.queries.sends().get("later", {}).values()) == USERS, WAIT_S_MAX)
        await quiet(node)
        assert set(Counter(site.attempted()).values()) == {1}
        assert node.queries.sends()["later"]["held"] > 0
        produce(site, likes[:1])
        await until(lambda: len(site.attempted()) == USERS + 1, WAIT_S_MAX)
