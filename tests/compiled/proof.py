"""What the rules make of some thousand events, as one digest; run once on the sources and once on compiled modules.

`python -m tests.compiled.proof` prints it; with a folder of builds as argument, of the build that lies there.
Every byte of the store counts: rows, timers, positions, mailboxes, outputs and dead letters; and the export files.
"""

import json
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from config.compiled import use_compiled

if TYPE_CHECKING:
    from tests.bench.stages import Pipeline
    from tests.bench.workload import Entry

BASE_MS: Final = 1_700_000_000_000
ROUNDS: Final = 4
EVENTS: Final = 1_000
USERS: Final = 150
LEAP_MS: Final = 31 * 3_600_000
STEP_MS: Final = 37


class Clock:
    """A clock that moves a little whenever somebody looks."""

    def __init__(self) -> None:
        self.ms = BASE_MS

    def now_ms(self) -> int:
        self.ms += STEP_MS
        return self.ms


def odd(at: int) -> Iterator[bytes]:
    """Records of other kinds: ids that come twice, track bodies, sessions, what nobody can read, what is refused."""
    user = f"odd-{at % 7}"
    for _ in range(2):
        yield json.dumps({"type": "event", "name": "ü", "external_id": user, "id": f"id-{at}", "time": None}).encode()
    attributes = [{"external_id": user, "n": at, "tags": None}, {"external_id": "", "n": 1}]
    events = [{"external_id": user, "name": "action_01", "time": "2023-11-14T22:13:20Z", "properties": {"a": [{}]}}]
    purchases = [{"external_id": user, "product_id": "p", "currency": "EUR", "price": 0.1 * at, "quantity": 3}, {}]
    yield json.dumps({"attributes": attributes, "events": events, "purchases": purchases}).encode()
    yield json.dumps({"type": "session_start", "external_id": user, "app_id": "a", "session_id": f"s{at}"}).encode()
    yield json.dumps({"type": "session_end", "external_id": user}).encode()
    yield json.dumps({"type": "attributes", "external_id": user, "email": "a@b.example" if at % 3 else "no"}).encode()
    yield json.dumps({"type": "event", "external_id": user, "name": "late", "time": "2999-01-01T00:00:00Z"}).encode()
    yield json.dumps({"type": "event", "external_id": user, "name": "", "properties": {"x": 2**70}}).encode()
    yield json.dumps({"type": "purchase", "external_id": user, "price": "1.10", "currency": "usd"}).encode()
    yield b'{"type":"event","external_id":"' + b"\xff" + b'"}'
    yield b"[" * 40
    yield b""


def _outcomes(pipeline: "Pipeline", seen: dict[int, int]) -> None:
    """Tell the rows what became of their dispatches, some of it twice and late."""
    from streams.codec import pack
    from streams.mailbox import Outcome, OutcomeKind
    from streams.records import Output
    from streams.sends import decode_send

    kinds: tuple[OutcomeKind, ...] = ("sent", "retry", "held", "aborted", "failed")
    outputs = []
    for partition in range(pipeline.partitions):
        for record in pipeline.log.read("sends.log", partition, seen.get(partition, 0)):
            seen[partition] = record.offset + 1
            send = decode_send(record.value)
            kind = kinds[record.offset % len(kinds)]
            outcome = Outcome(send.dispatch_id, 1, kind, send.decided_ms + 5, "550 no" if kind == "failed" else "")
            outputs += [Output("mailbox", partition, record.key, pack(outcome))] * 2
    pipeline._commit(pipeline.store.batch(), outputs)


def _entries(stream_entries: "list[Entry]", number: int) -> "list[Entry]":
    from tests.bench.workload import Entry

    strange = [Entry(at % 2, b"", value) for at in range(number * 10, number * 10 + 10) for value in odd(at)]
    return [*stream_entries, *(entry._replace(key=None) for entry in strange)]  # type: ignore[arg-type]  # None: no key


def run(folder: Path) -> str:
    """Fold the events in a new store; what came of it in a line."""
    from tables.store import FAMILIES
    from tests.bench.stages import Pipeline, Plan
    from tests.bench.workload import Stream

    plan = Plan(partitions=2)
    pipeline, clock = Pipeline(folder, plan), Clock()
    pipeline.clock = clock  # type: ignore[assignment]  # a clock by its one method
    stream = Stream("zipf", USERS, 1, BASE_MS, plan.partitions)
    seen: dict[int, int] = {}
    for number in range(ROUNDS):
        pipeline.run(_entries(stream.take(EVENTS), number))
        _outcomes(pipeline, seen)
        clock.ms += LEAP_MS
    pipeline.run([])
    pipeline.export(folder / "exports")
    found = blake2b(digest_size=16)
    sizes: dict[str, int] = {}
    for family in FAMILIES:
        sizes[family] = 0
        for key, value in pipeline.store.scan(family, b"", b"\xff" * 64):
            sizes[family] += 1
            found.update(b"%d %d " % (len(key), len(value)) + key + value)
    for path in sorted((folder / "exports").rglob("*.avro")):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    refused = sum(pipeline.log.end("dead-letters", at) for at in range(plan.partitions))
    totals = [fold.position.totals for fold in pipeline.folds]
    pipeline.store.close()
    timers, sends = sum(each.timers for each in totals), sum(sum(each.sends.values()) for each in totals)
    return f"{sizes}, {refused} dead letters, {timers} timers, {sends} sends: {found.hexdigest()}"


def main() -> None:
    """Print the line; SystemExit when there is no build to run."""
    if len(sys.argv) > 1 and use_compiled(Path(sys.argv[1])) != "compiled":
        sys.exit(f"{sys.argv[1]}: no build of these sources")
    with TemporaryDirectory(prefix="headrace-proof-") as folder:
        print(run(Path(folder)), flush=True)


if __name__ == "__main__":
    main()
