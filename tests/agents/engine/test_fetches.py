"""Fetches: what was unpacked is let go at once."""

import gc
import sys

from aiokafka import TopicPartition
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from agents.engine.kafka.fetches import Fetched, Newest


def test_the_bytes_of_a_fetch_are_free_once_unpacked() -> None:
    """No cycle keeps a fetch's megabytes until a collection, which workers run rarely."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for offset in range(3):
        builder.append(offset, 5, b"key-%d" % (offset % 2), b"value-%d" % offset, [])
    data = bytes(builder.build())
    newest: Newest = {}
    gc.disable()
    try:
        before = sys.getrefcount(data)
        count, _ = Fetched(TopicPartition("changelog", 0), 0, data, []).unpack(newest)
        after = sys.getrefcount(data)
    finally:
        gc.enable()

    assert (count, newest) == (3, {b"key-0": b"value-2", b"key-1": b"value-1"})
    assert after == before
