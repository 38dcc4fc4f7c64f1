"""What an event costs at 10, 1,000 and 10,000 segments, of which it touches five.

Run as `python -m tests.bench.segments '<JSON of Plan>'`; the last line on stdout is the result as JSON. Events of two
names are folded and committed as the users agent does; the other segments ask about names that never come. Three of
ten segments are windows of minutes and hours. A third of the events is of a new user; time then passes until every
timer has fired. Where the segments an event touches grow in number, so does its cost, and must: that is not measured.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from streams.codec import pack
from streams.definitions import read_definitions
from streams.events import CustomEvent
from streams.fold import Fold
from streams.mailbox import Cause, Happening
from streams.outputs import to_outputs
from streams.workspace import compile_workspace
from tables.log import Log
from tables.partition import PartitionState
from tables.store import Store
from tests.bench.stages import Stopwatch

PER_NAME: Final = 5
NAMES_SENT: Final = 2
SLICE_EVENTS: Final = 200
NEW_SHARE: Final = 1 / 3
WINDOWS: Final = ("5m", "1h", "90d")
START_MS: Final = 1_760_000_000_000
EVENT_MS: Final = 20


class Plan(msgspec.Struct, frozen=True):
    """How many segments, and how many events are sent about them."""

    segments: int
    events: int = 12_000
    seed: int = 1


def definitions(count: int) -> dict[str, Any]:
    """Segments by fives on event names, three of five with a window."""
    files: dict[str, Any] = {}
    for at in range(count):
        tree: dict[str, Any] = {"name": f"action_{at // PER_NAME:04d}", "at_least": 1 + at % PER_NAME}
        if at % PER_NAME < len(WINDOWS):
            tree["within"] = WINDOWS[at % PER_NAME]
        files[f"segments/s{at:05d}.yaml"] = {"name": f"s{at:05d}", "filter": {"event": tree}}
    return files


def events(plan: Plan) -> Iterator[tuple[str, CustomEvent]]:
    """User and event, one after the other."""
    dice, users = Random(plan.seed), 1
    for at in range(plan.events):
        is_new = dice.random() < NEW_SHARE
        users += is_new
        user = users if is_new else dice.randrange(users)
        yield f"user-{user:06d}", CustomEvent(f"action_{dice.randrange(NAMES_SENT):04d}", START_MS + at * EVENT_MS, {})


def measure(plan: Plan, folder: Path) -> dict[str, Any]:
    """Processor microseconds per event and per timer, and what compiling took."""
    watch, store = Stopwatch(), Store(folder / "db")
    with watch.time("compile"):
        workspace = compile_workspace(read_definitions(definitions(plan.segments)), -1)
    state, log = PartitionState(store, 0), Log(store)
    fold = Fold(state, state.position, "wall", lambda version: workspace)

    def commit() -> None:
        batch = store.batch()
        outputs = to_outputs(fold.take_effects(), 0)
        state.stage(batch)
        log.stage(batch, outputs, fold.position.clock_ms)
        store.write(batch)
        log.publish()

    for at, (user, event) in enumerate(events(plan)):
        letter = Happening(event, Cause("bench", 0, at, 0))
        value = pack(letter)
        with watch.time("events"):
            while fold.fire_next(event.time_ms):
                pass
            fold.apply(user.encode(), value, letter, event.time_ms)
            if at % SLICE_EVENTS == SLICE_EVENTS - 1:
                commit()
    timers = fold.position.totals.timers
    with watch.time("timers"):
        while fold.fire_next(START_MS * 2):
            if state.changed >= SLICE_EVENTS:
                commit()
        commit()
    fired = fold.position.totals.timers - timers
    store.close()
    return {
        "segments": plan.segments,
        "event_us": round(watch.seconds["events"] / plan.events * 1e6, 1),
        "timer_us": round(watch.seconds["timers"] / fired * 1e6, 1),
        "timers": fired,
        "compile_s": round(watch.seconds["compile"], 2),
    }


def main() -> None:
    """Measure the plan given as the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    with TemporaryDirectory(prefix="headrace-bench-") as folder:
        print(json.dumps(measure(plan, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
