"""Where an event's microseconds go: each stage of the product timed alone, in this process, on the same events.

Run as `python -m tests.bench.stages '<JSON of Plan>'`; the last line on stdout is the result as JSON.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from channels.sinks.avro_files import AvroFiles
from config.clock import SystemClock
from streams import topics
from streams.definitions import read_definitions
from streams.exports import ROWS_MAX, event_type_of
from streams.fold import Fold
from streams.ingest.raw_record import read_record
from streams.intake import route
from streams.mailbox import Cause, decode_letter
from streams.outputs import to_outputs
from streams.profiles.row import decode_row, encode_row, new_user
from streams.records import Output, Record
from streams.users import decide_event
from streams.workspace import Workspace, compile_workspace
from tables.log import Log
from tables.partition import PartitionState
from tables.store import Batch, Store
from tests.bench.workload import Stream, definitions

TOPIC_ID: Final = "bench"
CODEC_EVENTS: Final = 10_000


class Plan(msgspec.Struct, frozen=True):
    """The job, its users and how many events to warm up with and to measure."""

    job: str = "J2"
    users: str = "zipf"
    user_count: int = 5_000
    warm: int = 20_000
    events: int = 40_000
    seed: int = 1
    partitions: int = 8


class Stopwatch:
    """Processor seconds of this thread per stage: what other programs take of the machine does not count."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Add what happens inside to a stage."""
        began = time.thread_time()
        yield
        self.seconds[stage] += time.thread_time() - began

    def microseconds(self, events: int) -> dict[str, float]:
        """Per event, by stage."""
        return {stage: round(seconds / events * 1e6, 2) for stage, seconds in self.seconds.items()}


class Pipeline:
    """Intake, fold and commit over a real store, step by step, as the agents call them."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.store = Store(folder / "db")
        self.log = Log(self.store)
        self.clock = SystemClock()
        self.watch = Stopwatch()
        self.partitions = plan.partitions
        workspace = compile_workspace(read_definitions(definitions(plan.job)), -1)
        self.states = [PartitionState(self.store, at) for at in range(plan.partitions)]
        self.folds = [Fold(state, state.position, "wall", lambda version: workspace) for state in self.states]
        self.at = {(topic, at): 0 for topic in ("events", "mailbox", "currents") for at in range(plan.partitions)}
        self.row_bytes = self.rows_written = 0

    def run(self, entries: Sequence[Any]) -> None:
        """Take all entries through intake, then all letters through the fold."""
        outputs = [Output(topics.EVENTS.name, entry.partition, entry.key, entry.value) for entry in entries]
        for at in range(0, len(outputs), 1_000):
            self._commit(self.store.batch(), outputs[at : at + 1_000])
        for partition in range(self.partitions):
            while records := self._read(topics.EVENTS.name, partition, "events: read"):
                self._intake(partition, records)
        for partition in range(self.partitions):
            while records := self._read(topics.MAILBOX.name, partition, "mailbox: read"):
                self._fold(partition, records)

    def _read(self, topic: str, partition: int, stage: str) -> list[Record]:
        with self.watch.time(stage):
            records = self.log.read(topic, partition, self.at[topic, partition])
        if records:
            self.at[topic, partition] = records[-1].offset + 1
        return records

    def _intake(self, partition: int, records: list[Record]) -> None:
        with self.watch.time("intake: decode and route"):
            letters = [out for record in records for out in route(record, TOPIC_ID, partition, self.partitions, "wall")]
        with self.watch.time("intake: append"):
            self._commit(self.store.batch(), letters)

    def _fold(self, partition: int, records: list[Record]) -> None:
        state, fold, watch = self.states[partition], self.folds[partition], self.watch
        with watch.time("letters: decode"):
            letters = [decode_letter(record.value) for record in records]
        with watch.time("rows: get, decode and decide"):
            for record, letter in zip(records, letters, strict=True):
                now_ms = fold.time_of(letter, record.append_ms)
                while fold.fire_next(now_ms):
                    pass
                fold.apply(record.key or b"", record.value, letter, now_ms)
        with watch.time("outputs: encode"):
            outputs = to_outputs(fold.take_effects(), partition)
        self.rows_written += state.changed
        batch = self.store.batch()
        with watch.time("rows: encode and stage"):
            state.stage(batch)
        self.row_bytes += batch.raw.size_in_bytes()
        with watch.time("commit: outputs and write"):
            self._commit(batch, outputs)

    def _commit(self, batch: Batch, outputs: list[Output]) -> None:
        self.log.stage(batch, outputs, self.clock.now_ms())
        self.store.write(batch)
        self.log.publish()

    def export(self, folder: Path) -> None:
        """Write what the fold appended to currents into Avro files, as the export agent does."""
        found: defaultdict[str, list[tuple[int, bytes]]] = defaultdict(list)
        records = [record for at in range(self.partitions) for record in self._all(at)]
        with self.watch.time("export: sort by type"):
            for number, record in enumerate(records):
                found[event_type_of(record.headers, record.value)].append((number, record.value))
        sink = AvroFiles(folder, "bench")
        with self.watch.time("export: Avro files"):
            asyncio.run(_write(sink, found))

    def _all(self, partition: int) -> Iterator[Record]:
        while records := self._read(topics.CURRENTS.name, partition, "export: read"):
            yield from records


async def _write(sink: AvroFiles, found: dict[str, list[tuple[int, bytes]]]) -> None:
    for event_type, values in found.items():
        for at in range(0, len(values), ROWS_MAX):
            await sink.write(event_type, values[at : at + ROWS_MAX], 0)


def rules_alone(plan: Plan, entries: Sequence[Any], workspace: Workspace) -> dict[str, float]:
    """Microseconds per event of the rules and of the row codec when every event decodes and encodes its row.

    It is what both sides must pay, or save: decoding the event, deciding it, row from bytes and to bytes.
    """
    rows: dict[str, bytes] = {}
    watch = Stopwatch()
    for number, entry in enumerate(entries):
        if number == plan.warm:
            watch.seconds.clear()
        now_ms = time.time_ns() // 1_000_000
        with watch.time("event decode"):
            routed = read_record(entry.key, entry.value, now_ms).routed[0]
        stored = rows.get(routed.user)
        with watch.time("row decode"):
            row = new_user(now_ms) if stored is None else decode_row(stored)
        cause = Cause(TOPIC_ID, entry.partition, number, 0)
        with watch.time("decide"):
            decide_event(
                row, routed.user, routed.event, cause, max(now_ms, row.now_ms), workspace, is_new=stored is None
            )
        with watch.time("row encode"):
            rows[routed.user] = encode_row(row)
    alone = watch.microseconds(len(entries) - plan.warm)
    empty = Stopwatch()
    for _ in range(CODEC_EVENTS):
        with empty.time("nothing"):
            pass
    nothing = empty.microseconds(CODEC_EVENTS)["nothing"]
    alone = {stage: round(max(0.0, value - nothing), 2) for stage, value in alone.items()}
    return {
        **alone,
        "rules": round(alone["event decode"] + alone["decide"], 2),
        "codec": round(alone["row decode"] + alone["row encode"], 2),
        "row bytes": round(sum(map(len, rows.values())) / len(rows)),
    }


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Both tables of a plan."""
    stream = Stream(plan.users, plan.user_count, plan.seed, time.time_ns() // 1_000_000, plan.partitions)
    warm, entries = stream.take(plan.warm), stream.take(plan.events)
    workspace = compile_workspace(read_definitions(definitions(plan.job)), -1)
    alone = rules_alone(plan, [*warm, *entries], workspace)
    pipeline = Pipeline(folder, plan)
    pipeline.run(warm)
    pipeline.row_bytes = pipeline.rows_written = 0
    pipeline.watch.seconds.clear()
    for partition in range(plan.partitions):
        pipeline.at[topics.CURRENTS.name, partition] = pipeline.log.end(topics.CURRENTS.name, partition)
    pipeline.run(entries)
    pipeline.export(folder / "exports")
    pipeline.store.close()
    stages = pipeline.watch.microseconds(plan.events)
    return {
        "stages_us": {**stages, "sum": round(sum(stages.values()), 2)},
        "alone_us": alone,
        "changelog_bytes_per_event": round(pipeline.row_bytes / plan.events),
        "rows_written_per_event": round(pipeline.rows_written / plan.events, 3),
    }


def main() -> None:
    """Measure the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(measure(plan, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
