"""Runs the opponent: topics of its own, preloaded with the same events, one stock Faust process."""

import secrets
import time
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from tests.bench import stock, subject
from tests.bench.child import run_child
from tests.bench.workload import Stream
from tests.broker.kafka import create_topics

FLUSH_EVERY: Final = 5_000


def measure(plan: subject.Plan, address: str, folder: Path) -> dict[str, Any]:
    """The stock agent's result for a drain on the broker at `address`."""
    app = f"stock-{secrets.token_hex(4)}"
    names = [stock.topic_name(app, topic) for topic in (stock.EVENTS, *stock.OUTPUTS)]
    create_topics(address, dict.fromkeys(names, plan.partitions))
    _preload(address, names[0], plan)
    stock_plan = stock.Plan(
        app, f"kafka://{address}", str(folder / "faust"), plan.job, plan.warm, plan.events, plan.partitions
    )
    return run_child("tests.bench.stock", stock_plan)


def _preload(address: str, topic: str, plan: subject.Plan) -> None:
    stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "acks": "all", "log_level": 2})
    for number, entry in enumerate(stream.take(plan.warm + plan.events), 1):
        producer.produce(topic, entry.value, entry.key, entry.partition)
        if number % FLUSH_EVERY == 0:
            producer.flush()
    producer.flush()
