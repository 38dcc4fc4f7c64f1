"""Restores measured: our own changelog and stock Faust's, of the same rows on one broker, each into an empty folder."""

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
from confluent_kafka import Producer

from streams.profiles.counters import count_once
from streams.profiles.row import encode_row, new_user
from tests.bench import stock_restore
from tests.bench.child import run_child
from tests.broker.kafka import create_topics

Result = dict[str, Any]

RECORD_BYTES: Final = (200, 1_000)
TIMERS_ONE_IN: Final = 3
TRANSACTION_RECORDS: Final = 500
OURS_TIMES: Final = 3
FLUSH_EVERY: Final = 20_000
NOW_MS: Final = 1_760_000_000_000
SETTINGS: Final = {
    "cleanup.policy": "compact",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": str(6 * 1024 * 1024),
}


class Plan(msgspec.Struct, frozen=True):
    """One restore to measure: the app whose partition 0 is restored, its broker, and an empty folder."""

    app: str
    broker: str
    data: str
    records: int


@dataclass(frozen=True)
class _Size:
    """Records of one size, the same ones for both sides."""

    records: int
    record_bytes: int
    seed: int

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """Users in no order, each with a row; key and row are as many bytes as a record shall have."""
        dice = random.Random(self.seed)
        numbers = list(range(self.records))
        dice.shuffle(numbers)
        for number in numbers:
            key = b"user-%08d" % number
            user = new_user(NOW_MS)
            user.timer_ms = NOW_MS + dice.randrange(10**9) if number % TIMERS_ONE_IN == 0 else None
            user.events = {name: count_once(NOW_MS - dice.randrange(10**9)) for name in ("opened", "viewed")}
            user.attributes = {"note": ""}
            wanted = self.record_bytes - len(key) - len(encode_row(user))
            user.attributes = {"note": dice.randbytes(wanted // 2 + 1).hex()[: max(0, wanted - 2)]}
            yield key, encode_row(user)


def measure(address: str, records: int, seed: int) -> list[Result]:
    """Both sides at each size, in turn: ours before and behind stock Faust's, so that all meet the same machine."""
    found: list[Result] = []
    for record_bytes in RECORD_BYTES:
        size = _Size(records if record_bytes < max(RECORD_BYTES) else records // 2, record_bytes, seed)
        ours, theirs = _fill(address, size), _fill_stock(address, size)
        first = _child("tests.bench.our_restore", ours, address, size)
        stock = _child("tests.bench.stock_restore", theirs, address, size)
        rest = [_child("tests.bench.our_restore", ours, address, size) for _ in range(OURS_TIMES - 1)]
        found += _compared(size, [first, *rest], stock)
    return found


def _compared(size: _Size, ours: list[Result], stock: Result) -> list[Result]:
    """A row for each side; ours is the run in the middle, with how many times faster it is."""
    seconds = median(each["seconds"] for each in ours)
    middle = next(each for each in ours if each["seconds"] == seconds)
    rows = [
        {
            "side": side,
            "record_bytes": size.record_bytes,
            "records": size.records,
            "records_per_s": round(size.records / each["seconds"]),
            "mb_per_s": round(size.records * size.record_bytes / each["seconds"] / 1e6, 1),
            "cpu_us": round(each["cpu_s"] / size.records * 1e6, 2),
        }
        for side, each in (("headrace", middle), ("stock Faust", stock))
    ]
    rows[0]["times_wall"] = round(stock["seconds"] / seconds, 1)
    rows[0]["times_cpu"] = round(stock["cpu_s"] / middle["cpu_s"], 1)
    return rows


def _child(module: str, app: str, address: str, size: _Size) -> Result:
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        return run_child(module, Plan(app, f"kafka://{address}", str(Path(folder) / "data"), size.records))


def _fill(address: str, size: _Size) -> str:
    """A changelog as a worker writes it, in transactions; returns its app."""
    app = f"bench-{secrets.token_hex(4)}"
    topic = f"{app}.changelog"
    create_topics(address, {topic: 1}, SETTINGS)
    producer = Producer({"bootstrap.servers": address, "transactional.id": app, "linger.ms": 5, "log_level": 2})
    producer.init_transactions()
    producer.begin_transaction()
    for number, (key, row) in enumerate(size.rows(), 1):
        producer.produce(topic, row, b"u\0\0" + key, 0)
        if number % TRANSACTION_RECORDS == 0:
            producer.commit_transaction()
            producer.begin_transaction()
    producer.commit_transaction()
    return app


def _fill_stock(address: str, size: _Size) -> str:
    """The changelog of a stock Faust table with the same rows; returns its app."""
    app = f"stock-{secrets.token_hex(4)}"
    topic = stock_restore.changelog_name(app)
    create_topics(address, {topic: 1}, SETTINGS)
    create_topics(address, {stock_restore.topic_name(app): 1})
    producer = Producer({"bootstrap.servers": address, "linger.ms": 5, "log_level": 2})
    for number, (key, row) in enumerate(size.rows(), 1):
        producer.produce(topic, row, key, 0)
        if number % FLUSH_EVERY == 0:
            producer.flush()
    producer.flush()
    return app
