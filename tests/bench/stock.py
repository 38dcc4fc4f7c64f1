"""The opponent: the same job as a stock Faust agent with a stock RocksDB table, on Apache Kafka.

What a competent user writes: events keyed by user, one table row per user, `table[key] = row`, outputs by
`topic.send`. It runs the very rule functions and row codec of the product. It has no timers, no exports and no
protection against a crash between row and outputs, so it does less. Settings are those that Faust's manual
names for throughput. Run as `python -m tests.bench.stock '<JSON of Plan>'`.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import faust
import msgspec
from faust.types import StreamT
from faust.worker import Worker

from streams import topics
from streams.definitions import read_definitions
from streams.ingest.raw_record import read_record
from streams.mailbox import Cause
from streams.outputs import to_outputs
from streams.profiles.row import decode_row, encode_row, new_user
from streams.users import decide_event
from streams.workspace import compile_workspace
from tests.bench.workload import definitions

EVENTS: Final = "events"
OUTPUTS: Final = (topics.CURRENTS.name, topics.SEGMENT_CHANGES.name, topics.sends_topic("log"))


class Plan(msgspec.Struct, frozen=True):
    """What the process does, where its broker is and where its files go; sizes are counts of events."""

    app: str
    broker: str
    data: str
    job: str = "J2"
    warm: int = 10_000
    events: int = 20_000
    partitions: int = 8


def topic_name(app: str, topic: str) -> str:
    """The topic of a run of its own, since others may have run on the same broker."""
    return f"{app}.{topic}"


class Progress:
    """Counts events, and ends the process with a result after the last."""

    def __init__(self, app: faust.App, plan: Plan) -> None:
        self._app = app
        self._plan = plan
        self._done = 0
        self._began = self._cpu_began = 0.0

    async def count(self) -> None:
        """One more event is done; warm ones are not timed."""
        self._done += 1
        if self._done == self._plan.warm:
            self._began, self._cpu_began = time.perf_counter(), time.process_time()
        if self._done % 5_000 == 0:
            print(f"  stock: {self._done:,} of {self._plan.warm + self._plan.events:,}", file=sys.stderr)
        if self._done == self._plan.warm + self._plan.events:
            await self._app.producer.flush()
            self._finish()

    def _finish(self) -> None:
        seconds, events = time.perf_counter() - self._began, self._plan.events
        result = {
            "events": events,
            "seconds": round(seconds, 3),
            "events_per_s": round(events / seconds),
            "wall_us": round(seconds / events * 1e6, 1),
            "cpu_us": round((time.process_time() - self._cpu_began) / events * 1e6, 1),
        }
        print("\n" + json.dumps(result), flush=True)  # a line of its own: Faust moves the cursor before it
        os._exit(0)


def build(plan: Plan) -> faust.App:
    """The app, with Faust's own RocksDB store, Cython and uvloop, and settings for throughput."""
    app = faust.App(
        plan.app,
        broker=plan.broker,
        store="rocksdb://",
        datadir=plan.data,
        topic_partitions=plan.partitions,
        topic_replication_factor=1,
        autodiscover=False,
        web_enabled=False,
        cython_optimizations=True,
        stream_buffer_maxsize=16_384,
        stream_wait_empty=False,
        broker_max_poll_records=5_000,
        producer_linger_ms=5,
        producer_max_batch_size=512 * 1024,
        consumer_auto_offset_reset="earliest",
    )
    progress = Progress(app, plan)
    if plan.job == "J1":
        _count_per_user(app, plan, progress)
    else:
        _decide(app, plan, progress)
    return app


def _count_per_user(app: faust.App, plan: Plan, progress: Progress) -> None:
    events = app.topic(topic_name(plan.app, EVENTS), key_type=str, key_serializer="raw", value_serializer="json")
    counts = app.Table("counts", default=int, partitions=plan.partitions, key_type=str, options={"driver": "rocksdict"})

    @app.agent(events)
    async def count(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            counts[event.key] += 1
            await progress.count()


def _decide(app: faust.App, plan: Plan, progress: Progress) -> None:
    workspace = compile_workspace(read_definitions(definitions(plan.job)), 0)
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    events = app.topic(topic_name(plan.app, EVENTS), **raw)
    outputs = {name: app.topic(topic_name(plan.app, name), **raw) for name in OUTPUTS}
    rows = app.Table(
        "users", partitions=plan.partitions, key_type=bytes, value_type=bytes, options={"driver": "rocksdict"}
    )

    @app.agent(events)
    async def decide(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            message = event.message
            now_ms = int(message.timestamp * 1000)
            routed = read_record(message.key, event.value, now_ms).routed[0]
            stored = rows.get(message.key)
            row = new_user(now_ms) if stored is None else decode_row(stored)
            cause = Cause(plan.app, message.partition, message.offset, routed.item)
            now_ms = max(now_ms, row.now_ms)
            effects = decide_event(row, routed.user, routed.event, cause, now_ms, workspace, is_new=stored is None)
            rows[message.key] = encode_row(row)
            for output in to_outputs(effects or [], message.partition):
                await outputs[output.topic].send(key=output.key, value=output.value)
            await progress.count()


def main() -> None:
    """Run the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    Path(plan.data).mkdir(parents=True, exist_ok=True)
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    Worker(build(plan), loglevel="error", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
