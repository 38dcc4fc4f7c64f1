"""Output topics as a stranger reads them: by another client, committed records only, to their end."""

from __future__ import annotations

import json
import uuid
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

POLL_S = 20.0


def read_topic(address: str, topic: str) -> list[dict[str, Any]]:
    """The JSON values of every committed record of a topic, in order of partition and offset.

    Raises KafkaException if the broker does not serve them within 20 s.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=POLL_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        return _to_the_end(consumer, set(partitions))
    finally:
        consumer.close()


def _to_the_end(consumer: Consumer, left: set[int]) -> list[dict[str, Any]]:
    found: list[tuple[int, int, dict[str, Any]]] = []
    while left:
        message = consumer.poll(POLL_S)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        error = message.error()
        if error is None:
            found.append((message.partition() or 0, message.offset() or 0, json.loads(message.value() or b"")))
        elif error.code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition() or 0)
        else:
            raise KafkaException(error)
    found.sort(key=lambda each: each[:2])
    return [value for _, _, value in found]
