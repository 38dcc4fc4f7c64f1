"""The output topics, read by another client than the product's, as any consumer of committed records sees them."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from tests.chaos.verifier import Verdict, export_rows
from tests.chaos.workload import ACTIVE_AT, Workload

READ_S_MAX = 30.0
CAMPAIGNS = {"webhook": ("go", "later"), "email": ("mail",)}


def read_topic(broker: str, topic: str) -> list[Any]:
    """Every committed value of a topic, as JSON, partition by partition. Raises TimeoutError when it does not end."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        partitions = consumer.list_topics(topic, READ_S_MAX).topics[topic].partitions
        found: list[Any] = []
        for partition in sorted(partitions):
            consumer.assign([TopicPartition(topic, partition, 0)])
            while (message := consumer.poll(READ_S_MAX)) is not None and message.error() is None:
                found.append(json.loads(message.value() or b"null"))
            if message is None:
                raise TimeoutError(f"{topic}[{partition}]: nothing for {READ_S_MAX:.0f} s, and not the end")
        return found
    finally:
        consumer.close()


@dataclass
class Topics:
    """What the output topics hold: sends by channel, currents, segment changes."""

    sends: dict[str, list[Any]]
    currents: list[Any]
    changes: list[Any]


def verify_topics(work: Workload, app: str, broker: str, exports: Path, verdict: Verdict) -> None:
    """Read the topics, and hold them to the model and to the files."""
    sends = {channel: read_topic(broker, f"{app}.sends.{channel}") for channel in CAMPAIGNS}
    topics = Topics(sends, read_topic(broker, f"{app}.currents"), read_topic(broker, f"{app}.segment-changes"))
    hold_topics(work, topics, Counter({row["id"] for row in export_rows(exports)}), verdict)


def hold_topics(work: Workload, topics: Topics, exported: Counter[str], verdict: Verdict) -> None:
    """Sends, currents and segment changes: each decided once, and the currents are those of the files."""
    for channel, names in CAMPAIGNS.items():
        sends = topics.sends[channel]
        items = Counter((send["user"], send["campaign"], int(send["event_properties"]["n"])) for send in sends)
        wanted = sum((work.wanted(name) for name in names), Counter())
        verdict.compare(f"topic sends.{channel}", items, wanted)
        _once(f"topic sends.{channel}: dispatch ids", Counter(send["dispatch_id"] for send in sends), verdict)
    currents = Counter(row["id"] for row in topics.currents)
    _once("topic currents: ids", currents, verdict)
    verdict.compare("files beside topic currents", exported, Counter(set(currents)))
    _changes(work, topics.changes, verdict)


def _changes(work: Workload, changes: list[Any], verdict: Verdict) -> None:
    """Nobody leaves `active`, so whoever has bumps enough has entered it once."""
    entered = Counter(
        each["external_id"] for each in changes if each["segment"] == "active" and each["change"] == "enter"
    )
    bumps = Counter(user for user, _, _ in work.wanted("bump"))
    sure = Counter({user: 1 for user, count in bumps.items() if count >= ACTIVE_AT})
    missing, twice = sure - entered, [user for user, count in entered.items() if count > 1]
    if missing or twice:
        verdict.lost += missing.total()
        verdict.doubled += len(twice)
        verdict.fault(f"topic segment-changes: {sorted(missing)} never entered, {twice} entered twice")


def _once(what: str, ids: Counter[str], verdict: Verdict) -> None:
    verdict.compare(what, ids, Counter(set(ids)))
