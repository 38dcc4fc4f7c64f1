"""Runs the opponent: a broker of its own, topics preloaded with the same events, one stock Faust process."""

import time
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from tests.bench import stock, subject
from tests.bench.child import run_child
from tests.bench.workload import Stream
from tests.broker.kafka import Broker, create_topics

FLUSH_EVERY: Final = 5_000


def measure(plan: subject.Plan, folder: Path) -> dict[str, Any]:
    """The stock agent's result for a drain; raises BrokerUnavailableError where no broker can be had."""
    broker = Broker.from_environment(folder / "broker").start()
    try:
        create_topics(broker.address, dict.fromkeys((stock.EVENTS, *stock.OUTPUTS), plan.partitions))
        _preload(broker.address, plan)
        stock_plan = stock.Plan(
            f"kafka://{broker.address}", str(folder / "faust"), plan.job, plan.warm, plan.events, plan.partitions
        )
        return run_child("tests.bench.stock", stock_plan)
    finally:
        broker.stop()


def _preload(address: str, plan: subject.Plan) -> None:
    stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "acks": "all", "log_level": 2})
    for number, entry in enumerate(stream.take(plan.warm + plan.events), 1):
        producer.produce(stock.EVENTS, entry.value, entry.key, entry.partition)
        if number % FLUSH_EVERY == 0:
            producer.flush()
    producer.flush()
