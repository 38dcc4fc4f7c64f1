"""J3: the job J2 over a state many times larger than the block cache, so that nearly every event meets a cold row.

Run as `python -m tests.bench.large_state '<JSON of Plan>'`; the last line on stdout is the result as JSON. The rows
of two hundred users of J2 are stored under the names of all, by the product's own codec and state, before it starts.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import uvloop

from agents.node import Node
from config.clock import SystemClock
from config.logging import set_up_logging
from config.settings import Settings
from streams.codec import partition_of
from streams.definitions import read_definitions
from streams.ingest.raw_record import read_record
from streams.mailbox import Cause
from streams.profiles.row import User, decode_row, encode_row, new_user
from streams.times import DAY_MS
from streams.users import decide_event, decide_timer
from streams.workspace import compile_workspace
from tables.partition import PartitionState
from tables.store import CACHE_BYTES, Store
from tests.bench import subject
from tests.bench.workload import Stream, definitions

KINDS: Final = 200
KIND_EVENTS: Final = 4_000
BATCH_ROWS: Final = 2_000
TIMES_CACHE: Final = 4
SILENCE_MS: Final = 100 * DAY_MS


class Plan(msgspec.Struct, frozen=True):
    """How many users lie in the store, and how many events are drained over them."""

    user_count: int = 240_000
    warm: int = 2_000
    events: int = 15_000
    seed: int = 1
    partitions: int = 8


def rows(plan: Plan) -> Iterator[bytes]:
    """The rows of a few users after some events each, over and over; every window has ended, and no timer is armed."""
    now_ms = time.time_ns() // 1_000_000 - SILENCE_MS
    workspace = compile_workspace(read_definitions(definitions("J2")), 0)
    users: dict[str, User] = {}
    for at, entry in enumerate(Stream("uniform", KINDS, plan.seed, now_ms, plan.partitions).take(KIND_EVENTS)):
        routed = read_record(entry.key, entry.value, now_ms).routed[0]
        is_new = routed.user not in users
        user = users.setdefault(routed.user, new_user(now_ms))
        decide_event(user, routed.user, routed.event, Cause("made", 0, at, 0), now_ms, workspace, is_new=is_new)
        user.dispatches.clear()  # none of them was sent
    for name, user in users.items():
        while user.timer_ms is not None:
            decide_timer(user, name, user.timer_ms, workspace)
    made = [encode_row(user) for user in users.values()]
    while True:
        yield from made


def fill(data: Path, plan: Plan) -> int:
    """Store a row for every user of the plan; returns the bytes of all rows."""
    store = Store(data / "db")
    states = [PartitionState(store, at) for at in range(plan.partitions)]
    total = 0
    for at, row in zip(range(plan.user_count), rows(plan), strict=False):
        name = f"user-{at:07d}"
        state = states[partition_of(name.encode(), plan.partitions)]
        state.put(name, decode_row(row), None)
        state.position.totals.users += 1
        state.position.version = 0
        total += len(row)
        if state.changed >= BATCH_ROWS:
            _write(store, state)
    for state in states:
        _write(store, state)
    store.close()
    return total


def _write(store: Store, state: PartitionState) -> None:
    batch = store.batch()
    state.stage(batch)
    store.write(batch)


async def apply(data: Path, plan: Plan) -> None:
    """Put J2's workspace into force, so that its start changes nothing over the rows."""
    node = Node(Settings(data=data, partitions=plan.partitions, http=""), SystemClock())
    await node.connect()
    await node.workspaces.apply(read_definitions(definitions("J2")))
    await node.disconnect()


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """A drain over the large state."""
    data = folder / "data"
    uvloop.run(apply(data, plan))
    state_bytes = fill(data, plan)
    drain = subject.Plan(
        "drain", users="uniform", user_count=plan.user_count, warm=plan.warm, events=plan.events, seed=plan.seed
    )
    found = uvloop.run(subject.measure(drain, folder))
    return {
        "users": plan.user_count,
        "state_mib": round(state_bytes / 2**20),
        "times_cache": round(state_bytes / CACHE_BYTES, 1),
        **found,
    }


def main() -> None:
    """Measure the plan given as the first argument."""
    set_up_logging()
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        found = measure(plan, Path(folder))
    if found["times_cache"] < TIMES_CACHE:
        print(f"J3 is meant to be at least {TIMES_CACHE} times the block cache", file=sys.stderr)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
