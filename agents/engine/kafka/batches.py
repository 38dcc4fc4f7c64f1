"""Batches: rows handed to a producer in closed batches, and what the broker said of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.engine.kafka.clients import RECORD_BYTES_MAX
from agents.engine.pace import Pace
from streams.records import Headers

Row = tuple[bytes | None, bytes | None, Headers]
Target = tuple[str, int]
"""A topic's whole name, and a partition."""


class Sent:
    """Batches on their way to one partition."""

    def __init__(self) -> None:
        self._acks: list[tuple[Any, int]] = []
        self.first_offset = 0
        self.next_offset = 0
        self.append_ms = 0
        self.size = 0

    def add(self, ack: Any, records: int, size: int) -> None:
        """One batch was handed to the producer."""
        self._acks.append((ack, records))
        self.size += size

    async def all(self) -> None:
        """Wait until the broker has every batch; raises what it refused."""
        for number, (ack, records) in enumerate(self._acks):
            metadata = await ack
            if number == 0:
                self.first_offset = metadata.offset
            self.next_offset = metadata.offset + records
            self.append_ms = metadata.timestamp


async def send_all(producer: AIOKafkaProducer, groups: Mapping[Target, Sequence[Row]], pace: Pace) -> list[Sent]:
    """Hand rows to a producer in closed batches: an open one may take other senders' records, and waits.

    All are built before the first is handed over: what is there when the sender looks goes in one request.
    """
    built = [(target, await _build(producer, target, rows, pace)) for target, rows in groups.items()]
    return [await _hand_over(producer, target, builders) for target, builders in built]


async def _build(producer: AIOKafkaProducer, target: Target, rows: Sequence[Row], pace: Pace) -> list[Any]:
    builder = producer.create_batch()
    builders = [builder]
    for key, value, headers in rows:
        size = len(key or b"") + len(value or b"")
        if size > RECORD_BYTES_MAX:  # the first record of a batch is taken whatever its size
            raise OverflowError(
                f"{target[0]}[{target[1]}]: a record of {size} bytes, a broker takes {RECORD_BYTES_MAX}"
            )
        if builder.append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
            builder = producer.create_batch()
            builders.append(builder)
            builder.append(key=key, value=value, timestamp=None, headers=list(headers))
        if pace.spent:
            await pace.rest()
    return [each for each in builders if each.record_count()]


async def _hand_over(producer: AIOKafkaProducer, target: Target, builders: Sequence[Any]) -> Sent:
    topic, partition = target
    sent = Sent()
    for builder in builders:
        records, size = builder.record_count(), builder.size()
        builder.close()
        sent.add(await producer.send_batch(builder, topic, partition=partition), records, size)
    return sent
