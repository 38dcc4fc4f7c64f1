"""Batches: rows handed to a producer in closed batches, and what the broker said of them."""

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.engine.pace import Pace
from streams.records import Headers

Row = tuple[bytes | None, bytes | None, Headers]


class Sent:
    """Batches on their way to one partition."""

    def __init__(self) -> None:
        self._acks: list[tuple[Any, int]] = []
        self.next_offset = 0
        self.append_ms = 0
        self.size = 0

    def add(self, ack: Any, records: int, size: int) -> None:
        """One batch was handed to the producer."""
        self._acks.append((ack, records))
        self.size += size

    async def all(self) -> None:
        """Wait until the broker has every batch; raises what it refused."""
        for ack, records in self._acks:
            metadata = await ack
            self.next_offset = metadata.offset + records
            self.append_ms = metadata.timestamp


async def send(producer: AIOKafkaProducer, topic: str, partition: int, rows: Sequence[Row], pace: Pace) -> Sent:
    """Hand rows to a producer in closed batches: an open one may take other senders' records, and waits."""
    sent = Sent()
    builder = producer.create_batch()
    for key, value, headers in rows:
        if builder.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
            await _close(producer, topic, partition, builder, sent)
            builder = producer.create_batch()
            if builder.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
                raise OverflowError(f"{topic}[{partition}]: a record of {len(value or b'')} bytes fits no batch")
        await pace.breathe()
    if builder.record_count():
        await _close(producer, topic, partition, builder, sent)
    return sent


async def _close(producer: AIOKafkaProducer, topic: str, partition: int, builder: Any, sent: Sent) -> None:
    records, size = builder.record_count(), builder.size()
    builder.close()
    sent.add(await producer.send_batch(builder, topic, partition=partition), records, size)
