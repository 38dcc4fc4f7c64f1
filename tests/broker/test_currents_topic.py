"""The currents topic on Kafka, read as a warehouse would read it: by another client, with a JSON parser alone."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message

from config.clock import SystemClock
from tests.agents.nodes import PARTITIONS, event, process, running
from tests.broker.kafka import Broker
from tests.channels.sinks.files import rows_in

pytestmark = pytest.mark.broker
USERS = [f"u{number}" for number in range(20)]


def read_topic(address: str, topic: str, wanted: int) -> Iterator[Message]:
    """Committed records from the topic's beginning, so many of them and whatever comes within a second behind."""
    settings = {"bootstrap.servers": address, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "isolation.level": "read_committed"})
    consumer.subscribe([topic])
    left = wanted
    while (message := consumer.poll(20.0 if left > 0 else 1.0)) is not None:
        assert message.error() is None
        left -= 1
        yield message
    consumer.close()


@pytest.mark.timeout(180)
async def test_another_client_reads_what_the_files_hold(broker: Broker, tmp_path: Path) -> None:
    """Each event is one record, keyed by its user, in order, with type and id in the headers, equal to its row."""
    app = f"t{uuid.uuid4().hex[:8]}"
    settings = {"broker": f"kafka://{broker.address}", "app": app}
    async with running(tmp_path / "data", SystemClock(), **settings) as node:
        for number in range(3):
            await process(node, *(event(user, properties={"n": number}) for user in USERS))
        await node.export.flush()
        rows = {row["id"]: row for path in (tmp_path / "data/exports").glob("*/*/*.avro") for row in rows_in(path)}
    messages = list(read_topic(broker.address, f"{app}.currents", 3 * len(USERS)))

    assert len(messages) == len(rows) == 3 * len(USERS)
    seen: dict[str, list[int]] = {user: [] for user in USERS}
    for message in messages:
        value: dict[str, Any] = json.loads(message.value() or b"")
        headers = dict(message.headers() or [])
        assert message.key() == value["external_user_id"].encode()
        assert (message.partition() or 0) < PARTITIONS
        assert headers["id"] == value["id"].encode()
        assert headers["event_type"] == value.pop("event_type").encode() == b"users.behaviors.CustomEvent"
        assert value == {name: field for name, field in rows[value["id"]].items() if field is not None}
        seen[value["external_user_id"]].append(json.loads(value["properties"])["n"])
    assert all(numbers == [0, 1, 2] for numbers in seen.values())
