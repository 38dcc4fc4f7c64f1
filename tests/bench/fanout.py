"""A campaign to a million users: how fast it is decided, and what a kill, a cancelling and events meanwhile make of it.

`python -m tests.bench.fanout [--users N]` prepares the users and lets four scheduled campaigns go to all of them, one
after another, in a process of its own: one unthrottled, of which it takes the times of the first message and of the
last decision; one that is killed with -9 midway and started again; one that is cancelled midway; and one at 5,000
users a second, in turns beside events whose latency it compares with an idle worker's, as `isolation.py` does. It
prints what it saw, and ends with 1 where a line does not hold:

- everyone is decided within 60 s, for a million users, and the first message leaves within 2 s;
- killed midway, each user has entered once and got one message;
- cancelled midway, nobody is decided after it, and whoever was not decided got nothing;
- at 5,000 users/s the p99 of events is at most twice that of an idle worker, or 25 ms more, whichever is larger.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Final, Self

import msgspec
import uvloop

import agents.node
from agents.fanout import run_fanouts
from agents.node import Node
from agents.web.control import ControlClient
from config.clock import SystemClock
from config.settings import Settings
from streams.definitions import Definitions, read_definitions
from streams.profiles.row import decode_row
from streams.times import format_time
from tables.partition import UsersView
from tables.store import Store
from tests.bench.isolation import CALM_S, MORE_MS_MAX, TIMES_MAX, WARM_S, Bench, workspace
from tests.bench.scan import OLD, PARTITIONS, USERS, prepare
from tests.bench.subject import percentiles
from tests.simulation.runtime import replaced

ROOT: Final = Path(__file__).parents[2]
MIDWAY: Final = 0.4
LEAD_MS: Final = 4_000
FIRST_S_MAX: Final = 2.0
DECIDED_S_MAX: Final = 60.0
LOOK_S: Final = 0.02
SETTLED_S: Final = 3.0
WAIT_S_MAX: Final = 3_600.0
RATE: Final = 5_000
TURNS: Final = 5
TURN_S: Final = 20.0
STOP_S_MAX: Final = 60.0


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"fanout: {text}", file=sys.stderr, flush=True)


def now() -> int:
    """The present, in milliseconds."""
    return time.time_ns() // 1_000_000


def definitions(times: dict[str, int]) -> Definitions:
    """The segment of the prepared users, and a campaign to it at each of the times."""
    files = dict(OLD)
    for name, at_ms in times.items():
        files[f"campaigns/{name}.yaml"] = {
            "name": name,
            "schedule": {"at": format_time(at_ms)},
            "audience": {"segment": "any"},
            "channel": "log",
            "message": {"text": "{{ ${user_id} }}"},
        }
    return read_definitions(files)


class Worker:
    """A process of the product over a folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        own = {"DATA": str(data), "PARTITIONS": str(PARTITIONS), "HTTP": "", "FANOUT_USERS_PER_S": "0"}
        rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        environ = {**rest, **{f"HEADRACE_{name}": value for name, value in own.items()}}
        self.process = subprocess.Popen([sys.executable, "app.py", "run"], cwd=ROOT, env=environ, stderr=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)

    async def ask(self, command: str, **args: Any) -> Any:  # noqa: ANN401  # JSON
        """An answer, as soon as there is somebody to give it."""
        deadline = time.monotonic() + WAIT_S_MAX
        while True:
            assert self.process.poll() is None, "the worker ended"
            assert time.monotonic() < deadline
            try:
                client = await ControlClient.connect(self.data)
                answer = await client.ask(command, args)
            except OSError:
                await asyncio.sleep(LOOK_S)
                continue
            client.close()
            return answer

    async def row(self, campaign: str) -> dict[str, Any]:
        """What `campaigns` says of one."""
        rows = await self.ask("campaigns")
        return next(row for row in rows if row["campaign"] == campaign)

    async def until(self, campaign: str, share: float) -> dict[str, Any]:
        """Wait until so much of the users is decided."""
        while True:
            row = await self.row(campaign)
            if row["users"] and row["decided"] >= share * row["users"] and (share < 1 or row["state"] == "done"):
                return row
            await asyncio.sleep(LOOK_S)

    async def quiet(self) -> None:
        """Wait until everything decided has been sent."""
        while True:
            found = await self.ask("progress")
            if found["idle"] and not found["behind"]:
                return
            await asyncio.sleep(0.5)

    def stop(self, signum: int) -> None:
        """End it, by force or not."""
        self.process.send_signal(signum)
        self.process.wait(STOP_S_MAX)


async def begin(worker: Worker, times: dict[str, int], campaign: str) -> int:
    """Put a campaign into force that goes out in a few seconds; returns when."""
    await worker.quiet()
    times[campaign] = now() + LEAD_MS
    await worker.ask("apply", definitions=msgspec.to_builtins(definitions(times)))
    return times[campaign]


async def speed(data: Path, times: dict[str, int]) -> dict[str, Any]:
    """One campaign at full speed."""
    with Worker(data) as worker:
        outbox = data / "outbox" / "log.jsonl"
        at_ms = await begin(worker, times, "fast")
        while not (outbox.exists() and outbox.stat().st_size):  # noqa: ASYNC110  # another process's file
            await asyncio.sleep(LOOK_S)
        first_s = (now() - at_ms) / 1000
        row = await worker.until("fast", 1.0)
        decided_s = (now() - at_ms) / 1000
        say(f"{row['entered']:,} users decided in {decided_s:.1f} s, the first message after {first_s:.2f} s")
        await worker.quiet()
        sent_s = (now() - at_ms) / 1000
        worker.stop(signal.SIGTERM)
    return {"first_s": first_s, "decided_s": decided_s, "sent_s": sent_s, "entered": row["entered"]}


async def killed(data: Path, times: dict[str, int]) -> dict[str, Any]:
    """One that is killed midway."""
    with Worker(data) as worker:
        await begin(worker, times, "killed")
        row = await worker.until("killed", MIDWAY)
        worker.stop(signal.SIGKILL)
        say(f"killed after {row['decided']:,} of {row['users']:,}")
    with Worker(data) as worker:
        last = await worker.until("killed", 1.0)
        await worker.quiet()
        worker.stop(signal.SIGTERM)
    return {"killed_at": row["decided"], "entered": last["entered"]}


async def cancelled(data: Path, times: dict[str, int]) -> dict[str, Any]:
    """One that is cancelled midway; what is decided is counted when the partitions have heard of it, and later."""
    with Worker(data) as worker:
        await begin(worker, times, "over")
        await worker.until("over", MIDWAY)
        await worker.ask("cancel", campaign="over")
        while any(one["state"] != "current" for one in await worker.ask("scans")):  # noqa: ASYNC110  # another process
            await asyncio.sleep(LOOK_S)
        row = await worker.row("over")
        say(f"cancelled after {row['decided']:,} of {row['users']:,}")
        await asyncio.sleep(SETTLED_S)
        await worker.quiet()
        later = await worker.row("over")
        worker.stop(signal.SIGTERM)
    return {"entered": row["entered"], "entered_later": later["entered"], "sent": later["sent"]}


def compare(data: Path, users: int, entered: int) -> dict[str, Any]:
    """Every row and every message: entries of each user, messages to each user, by campaign."""
    say("comparing")
    messages: dict[str, Counter[str]] = {name: Counter() for name in ("fast", "killed", "over")}
    with (data / "outbox" / "log.jsonl").open(encoding="utf-8") as file:
        for line in file:
            found = json.loads(line)
            messages[found["campaign"]][found["text"]] += 1
    store, wrong, over, seen = Store(data / "db"), 0, 0, 0
    for partition in range(PARTITIONS):
        for user, row in UsersView(store).raw(partition):
            seen += 1
            history = decode_row(row).campaigns
            entries = {name: found.entries for name, found in history.items()}
            over += entries.pop("over", 0)
            is_once = all(messages[name][user] == 1 for name in ("fast", "killed"))
            is_told = messages["over"][user] > int("over" in history)
            wrong += entries != {"fast": 1, "killed": 1} or not is_once or is_told
    store.close()
    return {"compared": seen, "wrong": wrong, "all_there": seen == users, "over_is_as_told": over == entered}


# ---- beside events


def wave(at_ms: int) -> Definitions:
    """The workspace of the bench of isolation, with a campaign to everyone by webhook."""
    message = {"url": "https://hooks.example/in", "body": "{{ ${user_id} }}"}
    files = {
        "campaigns/wave.yaml": {
            "name": "wave",
            "schedule": {"at": format_time(at_ms)},
            "channel": "webhook",
            "message": message,
        }
    }
    found = workspace(changed=False)
    return msgspec.structs.replace(found, campaigns=[*found.campaigns, *read_definitions(files).campaigns])


class Turns(Bench):
    """Turns with and without the fan-out."""

    async def turn(self, seconds: float) -> dict[str, Any]:
        """One turn idle, one while the fan-out goes on; what it has decided is sent before the next."""
        idle = await self.probes(seconds)
        so_far, began = self.decided(), time.perf_counter()
        task = asyncio.create_task(run_fanouts(self.node.engine, self.node.users))
        busy = await self.probes(seconds)
        rate = (self.decided() - so_far) / (time.perf_counter() - began)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while not self.node.delivery.idle or await self.node.behind():  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(CALM_S)
        return {"idle_ms": percentiles(idle), "busy_ms": percentiles(busy), "users_per_s": round(rate)}

    def decided(self) -> int:
        """Rows that the fan-out has passed."""
        found = [one for fold in self.node.users.folds.values() for one in fold.position.fanouts]
        return sum(one.rows for one in found)


async def _never(*arguments: Any) -> None:
    """Instead of the node's own fan-outs: they go on in turns."""
    await asyncio.Event().wait()


async def beside_events(data: Path, users: int, turns: int, seconds: float) -> dict[str, Any]:
    """Latency of events, idle and while a fan-out goes at 5,000 users a second."""
    node = Node(Settings(data=data, partitions=PARTITIONS, http=""), SystemClock())
    await node.connect()
    await node.workspaces.apply(workspace(changed=False))
    await node.disconnect()
    prepare(data, users, OLD, now())
    with replaced([(agents.node, "run_fanouts", _never)]):
        node = Node(Settings(data=data, partitions=PARTITIONS, http="", fanout_users_per_s=RATE), SystemClock())
        node.wire()
        bench = Turns(node, time.perf_counter)
        await node.start()
        await node.workspaces.apply(wave(now() + LEAD_MS))
        await bench.probes(WARM_S + LEAD_MS / 1000)
        assert node.users.is_building
        found = []
        for _ in range(turns):
            found.append(await bench.turn(seconds))
            say(json.dumps(found[-1]))
        await node.stop()
    idle, busy = (median(turn[f"{kind}_ms"]["p99"] for turn in found) for kind in ("idle", "busy"))
    allowed = max(TIMES_MAX * idle, idle + MORE_MS_MAX)
    return {"turns": found, "idle_p99_ms": idle, "busy_p99_ms": busy, "allowed_ms": round(allowed, 2)}


def proof(root: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All lines."""
    found: dict[str, Any] = {"users": asked.users}
    data, times = root / "one", dict[str, int]()
    uvloop.run(_apply_first(data))
    prepare(data, asked.users, OLD, now())
    found["speed"] = uvloop.run(speed(data, times))
    found["killed"] = uvloop.run(killed(data, times))
    found["cancelled"] = uvloop.run(cancelled(data, times))
    found["rows"] = compare(data, asked.users, found["cancelled"]["entered_later"])
    shutil.rmtree(data)
    events_users = min(asked.users, int(RATE * (asked.seconds + 5) * asked.turns) + 10_000)
    found["events"] = uvloop.run(beside_events(root / "two", events_users, asked.turns, asked.seconds))
    found["holds"] = verdict(found, asked.users)
    return found


async def _apply_first(data: Path) -> None:
    node = Node(Settings(data=data, partitions=PARTITIONS, http=""), SystemClock())
    await node.connect()
    await node.workspaces.apply(definitions({}))
    await node.disconnect()


def verdict(found: dict[str, Any], users: int) -> dict[str, bool]:
    """Which lines hold."""
    rows, over, events = found["rows"], found["cancelled"], found["events"]
    return {
        "decided": found["speed"]["decided_s"] <= DECIDED_S_MAX * max(1.0, users / USERS),
        "first_message": found["speed"]["first_s"] <= FIRST_S_MAX,
        "once": rows["wrong"] == 0 and rows["all_there"],
        "killed_midway": 0 < found["killed"]["killed_at"] < users and found["killed"]["entered"] == users,
        "cancelled": over["entered"] == over["entered_later"] < users and rows["over_is_as_told"],
        "events": events["busy_p99_ms"] <= events["allowed_ms"],
    }


def main(argv: list[str] | None = None) -> int:
    """Prove on folders of its own; 1 where a line does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--turns", type=int, default=TURNS, help="beside events")
    parser.add_argument("--seconds", type=float, default=TURN_S, help="of each turn")
    asked = parser.parse_args(argv)
    root = Path(tempfile.mkdtemp(prefix="headrace-fanout-"))
    try:
        found = proof(root, asked)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(found))
    return int(not all(found["holds"].values()))


if __name__ == "__main__":
    sys.exit(main())
