"""A toy job on one partition of a real broker, with a transaction per slice.

It counts per user: every source record yields one output record with a deterministic id, and the state is
rebuilt from a changelog whose marker record carries the source position. A worker is a process of its own
(`python -m tests.broker.toy PLAN`) that can be told at which stage of which slice it is to be hit.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from confluent_kafka import Consumer
from confluent_kafka import KafkaError as ConfluentError
from confluent_kafka import TopicPartition as ConfluentPartition

from tests.broker.kafka import create_topics

BATCH_BYTES_MAX = 1 << 20
SLICE_RECORDS_MAX = 2_000
TRANSACTION_TIMEOUT_MS = 10_000
WORKER_S_MAX = 90
READ_S_MAX = 60
MARKER_KEY = b"\x00position"
STAGES = ("sent", "acked", "committing", "committed")
EXIT_FENCED = 3
PLANTED_GAP_S = 0.01
FEED_RECORDS = 100  # in one transaction; after each one comes an aborted one
REPOSITORY = Path(__file__).resolve().parents[2]

Pair = tuple[bytes, bytes]
Builder = Any  # aiokafka's BatchBuilder, which has no types
Batch = tuple[str, int, Builder]  # topic, partition, a closed batch


class State(NamedTuple):
    """What the toy remembers: counts per user, and the source offset it wants next."""

    counts: Counter[bytes]
    position: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one worker process is to do, and where it is to be hit."""

    address: str
    run: str
    until: int  # the last source offset to cover
    transactional: bool = True
    slice_records_max: int = SLICE_RECORDS_MAX
    seed: int = 0
    hit_slice: int = 0  # 0: never
    hit_stage: str = ""
    hit_signal: int = signal.SIGKILL

    def topic(self, name: str) -> str:
        """The topic of this run for `source`, `changelog` or `output`."""
        return f"{self.run}.{name}"


class Fate:
    """Sends the planned signal to this process, once, when the planned slice reaches the planned stage."""

    def __init__(self, plan: Plan) -> None:
        """Start before the first slice."""
        self._signal, self._hit, self._slice = plan.hit_signal, (plan.hit_slice, plan.hit_stage), 0
        self.random = random.Random(plan.seed)

    def begin(self) -> None:
        """The next slice begins."""
        self._slice += 1

    def reach(self, stage: str) -> None:
        """Be hit here, if that is the plan."""
        if (self._slice, stage) == self._hit:
            self._hit = (0, "")
            os.kill(os.getpid(), self._signal)


def new_producer(address: str, transactional_id: str | None) -> AIOKafkaProducer:
    """An idempotent producer, not started; transactional if it gets an id."""
    own = {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
    return AIOKafkaProducer(
        bootstrap_servers=address,
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=4 * BATCH_BYTES_MAX,
        request_timeout_ms=10_000,
        **(own if transactional_id else {}),
    )


async def started_producer(address: str, id_: str | None, topics: Iterable[str]) -> AIOKafkaProducer:
    """A producer that owns its id from now on: zombies are fenced, what they left open is aborted."""
    producer = new_producer(address, id_)
    await producer.start()
    # Else the first topic it does not know makes aiokafka forget the leaders of all others.
    await producer.client.set_topics(set(topics))
    return producer


def closed_batch(producer: AIOKafkaProducer, pairs: Iterable[Pair]) -> Builder:
    """A closed batch of exactly these records; raises OverflowError if they do not fit."""
    batch = producer.create_batch()
    for key, value in pairs:
        if batch.append(timestamp=None, key=key, value=value) is None:
            raise OverflowError(f"more than {BATCH_BYTES_MAX} bytes in one batch")
    batch.close()
    return batch


async def commit_slice(producer: AIOKafkaProducer, batches: list[Batch], fate: Fate | None = None) -> None:
    """Commit all batches `(topic, partition, batch)` in one transaction, or raise and commit none.

    Every batch is awaited first: aiokafka commits happily around a batch that the broker refused.
    """
    reach = fate.reach if fate else lambda _stage: None
    await producer.begin_transaction()
    acks = [await producer.send_batch(batch, topic, partition=number) for topic, number, batch in batches]
    if fate:
        await asyncio.sleep(fate.random.uniform(0, 0.003))
    reach("sent")
    await asyncio.gather(*acks)
    reach("acked")
    if fate is None:
        await producer.commit_transaction()
        return
    commit = asyncio.create_task(producer.commit_transaction())
    await asyncio.sleep(fate.random.uniform(0, 0.003))
    reach("committing")
    await commit
    reach("committed")


async def send_slice(producer: AIOKafkaProducer, batches: list[Batch], fate: Fate | None = None) -> None:
    """The planted bug: one batch after the other, each acknowledged, but not one transaction."""
    for topic, partition, batch in batches:
        await (await producer.send_batch(batch, topic, partition=partition))
        if fate:
            await asyncio.sleep(PLANTED_GAP_S)
            for stage in STAGES:
                fate.reach(stage)


async def end_offset(address: str, topic: str, level: str, partition: int = 0) -> int:
    """The end of the partition for readers of that level: committed ones stop at an open transaction."""
    place = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(bootstrap_servers=address, isolation_level=level) as reader:
        return int((await reader.end_offsets([place]))[place])


async def read_all(address: str, topic: str, partition: int = 0, level: str = "read_committed") -> list[Any]:
    """Every record up to the end of the log as it is now; raises TimeoutError when that is not reached.

    A committed reader waits for transactions that are still open. Also for one whose commit has returned: the
    broker writes the markers after it has answered.
    """
    end = await end_offset(address, topic, "read_uncommitted", partition)
    reader = AIOKafkaConsumer(
        bootstrap_servers=address,
        isolation_level=level,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await reader.start()
    try:
        place, records = TopicPartition(topic, partition), []
        reader.assign([place])
        async with asyncio.timeout(READ_S_MAX):
            while await reader.position(place) < end:
                records += (await reader.getmany(place, timeout_ms=100)).get(place, [])
        return records
    finally:
        await reader.stop()


def read_all_with_librdkafka(address: str, topic: str) -> list[bytes]:
    """The committed values of partition 0 as the other client sees them."""
    options = {"bootstrap.servers": address, "group.id": "unused", "isolation.level": "read_committed"}
    reader = Consumer({**options, "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    reader.assign([ConfluentPartition(topic, 0, 0)])
    values: list[bytes] = []
    deadline = time.monotonic() + READ_S_MAX
    while time.monotonic() < deadline:
        message = reader.poll(1)
        error = message.error() if message else None
        if error and error.code() == ConfluentError._PARTITION_EOF:
            reader.close()
            return values
        if message and not error:
            values.append(message.value() or b"")
    raise TimeoutError(f"no end of {topic} within {READ_S_MAX} s")


def fold(state: State, records: list[Any]) -> tuple[State, list[Pair], list[Pair]]:
    """Count; gives the new state, the changelog rows with the marker last, and one output per record."""
    outputs = []
    for record in records:
        state.counts[record.key] += 1
        body = {"id": f"0-{record.offset}-0", "count": state.counts[record.key]}
        outputs.append((record.key, json.dumps(body).encode()))
    position = records[-1].offset + 1
    rows = [(user, b"%d" % state.counts[user]) for user in dict.fromkeys(record.key for record in records)]
    return State(state.counts, position), [*rows, (MARKER_KEY, b"%d" % position)], outputs


async def restore(plan: Plan) -> State:
    """The state as the committed changelog has it."""
    rows = {record.key: int(record.value) for record in await read_all(plan.address, plan.topic("changelog"))}
    position = rows.pop(MARKER_KEY, 0)
    return State(Counter(rows), position)


async def work(plan: Plan) -> None:
    """Fence, restore, then fold slice after slice until `plan.until`; tells its parent how far it came."""
    begun = time.perf_counter()
    commit = commit_slice if plan.transactional else send_slice
    topics = [plan.topic("output"), plan.topic("changelog")]
    producer = await started_producer(plan.address, plan.run if plan.transactional else None, topics)
    takeover_ms = (time.perf_counter() - begun) * 1000
    state, place, fate = await restore(plan), TopicPartition(plan.topic("source"), 0), Fate(plan)
    print("restored", state.position, round(takeover_ms), flush=True)
    source = AIOKafkaConsumer(
        bootstrap_servers=plan.address,
        isolation_level="read_committed",
        enable_auto_commit=False,
        fetch_max_wait_ms=25,
    )
    await source.start()
    source.assign([place])
    source.seek(place, state.position)
    while state.position <= plan.until:
        wanted = fate.random.randint(1, plan.slice_records_max)
        records = (await source.getmany(place, timeout_ms=1000, max_records=wanted)).get(place)
        if records:
            fate.begin()
            state, rows, outputs = fold(state, records)
            pairs = zip(topics, (outputs, rows), strict=True)
            await commit(producer, [(topic, 0, closed_batch(producer, made)) for topic, made in pairs], fate)
            print("committed", state.position, flush=True)
    await source.stop()
    await producer.stop()


def run_worker(plan: Plan) -> int:
    """Work in this process; gives the exit code, and says on stdout which error ended it."""

    async def bounded() -> None:
        async with asyncio.timeout(WORKER_S_MAX):
            await work(plan)

    try:
        uvloop.run(bounded())
    except KafkaError as error:
        print("failed", type(error).__name__, flush=True)
        return EXIT_FENCED if isinstance(error, ProducerFenced) else 1
    return 0


def spawn(plan: Plan) -> subprocess.Popen[str]:
    """The worker as a process of its own."""
    command = [sys.executable, "-m", "tests.broker.toy", json.dumps(asdict(plan))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=REPOSITORY)


def ended(worker: subprocess.Popen[str]) -> list[list[str]]:
    """Wait for the end of a worker and give the words of every whole line that it still said."""
    try:
        said, _ = worker.communicate(timeout=WORKER_S_MAX + 10)
    finally:
        worker.kill()
    return [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]


async def feed(plan: Plan, count: int) -> Plan:
    """Fill the source with `count` records of 50 users and holes between them; the plan up to the last."""
    rng, topic, last = random.Random(plan.seed), plan.topic("source"), -1
    producer = await started_producer(plan.address, f"{plan.run}-feed", [topic])
    for begin in range(0, count, FEED_RECORDS):
        pairs = [(b"user-%02d" % rng.randrange(50), b"%d" % n) for n in range(begin, min(begin + FEED_RECORDS, count))]
        await producer.begin_transaction()
        ack = await (await producer.send_batch(closed_batch(producer, pairs), topic, partition=0))
        last = ack.offset + len(pairs) - 1
        await producer.commit_transaction()
        await producer.begin_transaction()
        await (await producer.send_batch(closed_batch(producer, pairs[:3]), topic, partition=0))
        await producer.abort_transaction()
    await producer.stop()
    return replace(plan, until=last)


def new_run(address: str, name: str, records: int, seed: int, *, transactional: bool = True) -> Plan:
    """Fresh topics and a filled source."""
    plan = Plan(address, f"{name}-{seed}-{os.getpid()}-{time.monotonic_ns()}", -1, transactional, seed=seed)
    create_topics(address, {plan.topic(name): 1 for name in ("source", "changelog", "output")})
    return uvloop.run(feed(plan, records))


async def verdict(plan: Plan) -> dict[str, Any]:
    """Compare what readers see with the fold of the whole source."""
    source = await read_all(plan.address, plan.topic("source"))
    state, _, outputs = fold(State(Counter(), 0), source)
    wanted = [value for _, value in outputs]
    seen = [record.value for record in await read_all(plan.address, plan.topic("output"))]
    written = await read_all(plan.address, plan.topic("output"), level="read_uncommitted")
    return {
        "records": len(wanted),
        "exact": seen == wanted and await restore(plan) == state,
        "exact_for_librdkafka": read_all_with_librdkafka(plan.address, plan.topic("output")) == wanted,
        "lost": len({*wanted} - {*seen}),
        "doubled": len(seen) - len({*seen}),
        "rolled_back": len(written) - len(seen),
        "source_holes": source[-1].offset + 1 - len(source),
    }


if __name__ == "__main__":
    sys.exit(run_worker(Plan(**json.loads(sys.argv[1]))))
