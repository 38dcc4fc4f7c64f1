"""`python -m tests.bench.stock_restore PLAN`: stock Faust's recovery of a RocksDB table from its changelog.

Timed from the moment when Faust says that recovery begins to the one when it says that it has ended, so that
joining the group and starting up count for nothing.
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
import uvloop
from faust.types import StreamT
from faust.types.tables import TableT
from faust.worker import Worker

EVENTS: Final = "events"
RAW: Final[dict[str, Any]] = {
    "key_type": bytes,
    "value_type": bytes,
    "key_serializer": "raw",
    "value_serializer": "raw",
}


class Plan(msgspec.Struct, frozen=True):
    """As `restoring.Plan`, which this module may not import: it would bring the product along."""

    app: str
    broker: str
    data: str
    records: int


def topic_name(app: str) -> str:
    """The topic whose partition makes this process the owner of the table's."""
    return f"{app}.{EVENTS}"


def changelog_name(app: str) -> str:
    """The changelog of the table, as Faust names it."""
    return f"{app}-users-changelog"


def build(plan: Plan) -> faust.App:
    """The app, with Faust's own RocksDB store and settings for throughput."""
    app = faust.App(
        plan.app,
        broker=plan.broker,
        store="rocksdb://",
        datadir=plan.data,
        topic_partitions=1,
        topic_replication_factor=1,
        autodiscover=False,
        web_enabled=False,
        cython_optimizations=True,
        stream_buffer_maxsize=16_384,
        stream_wait_empty=False,
        broker_max_poll_records=5_000,
        consumer_max_fetch_size=16 * 1024 * 1024,
        consumer_auto_offset_reset="earliest",
    )
    events = app.topic(topic_name(plan.app), **RAW)
    rows = app.Table("users", partitions=1, key_type=bytes, value_type=bytes, options={"driver": "rocksdict"})

    @app.agent(events)
    async def decide(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            rows[event.key] = event.value

    _time(app, rows, plan)
    return app


def _time(app: faust.App, rows: TableT[bytes, bytes], plan: Plan) -> None:
    """End the process with a result when recovery has ended."""
    tables: Any = app.tables
    recovery = tables.recovery
    started, ended = recovery._set_recovery_started, recovery._set_recovery_ended
    began = [0.0, 0.0]

    def start() -> None:
        began[:] = time.perf_counter(), time.process_time()
        started()

    def end() -> None:
        ended()
        result = {"seconds": time.perf_counter() - began[0], "cpu_s": time.process_time() - began[1]}
        found = len(rows)
        if not began[0] or found != plan.records:
            print(f"stock Faust recovered {found} of {plan.records}", file=sys.stderr)
            os._exit(1)
        print("\n" + json.dumps(result), flush=True)
        os._exit(0)

    recovery._set_recovery_started, recovery._set_recovery_ended = start, end


def main() -> None:
    """Run the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    Path(plan.data).mkdir(parents=True, exist_ok=True)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    Worker(build(plan), loglevel="error", quiet=True, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
