"""A definition over a million users, the process killed twice amid it: the proof that it comes out right.

`python -m tests.bench.scan [USERS]` prepares that many rows, changes the workspace, kills the process with -9 twice
amid the scan, and holds every user to memberships computed without Headrace's rules. The rows come from no events
topic: the product's own rules, row codec and state write them, in batches, as the fold would have.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from agents.node import Node
from agents.web.control import ControlClient
from config.clock import SystemClock
from config.settings import Settings
from streams.codec import partition_of
from streams.definitions import read_definitions
from streams.events import CustomEvent
from streams.mailbox import Cause
from streams.profiles.row import decode_row, new_user
from streams.times import DAY_MS
from streams.users import decide_event
from streams.workspace import compile_workspace
from tables.partition import PartitionState, UsersView
from tables.store import Store

ROOT: Final = Path(__file__).parents[2]
PARTITIONS: Final = 8
USERS: Final = 1_000_000
BATCH_ROWS: Final = 2_000
KILLS_AT: Final = (0.3, 0.6)
TELL_ROWS: Final = 100_000
TELL_S: Final = 5.0

OLD: Final[dict[str, Any]] = {"segments/any.yaml": {"name": "any", "filter": {"event": {"name": "like"}}}}
NEW: Final[dict[str, Any]] = {
    "segments/many.yaml": {"name": "many", "filter": {"event": {"name": "like", "at_least": 3}}},
    "segments/late.yaml": {"name": "late", "filter": {"event": {"name": "like", "within": "30d"}}},
}


def likes(at: int, now_ms: int) -> list[int]:
    """When the user of a number has liked something, oldest first."""
    newest_ms = now_ms - (at * 7 % 60) * DAY_MS - DAY_MS // 2
    return [newest_ms - back * DAY_MS for back in range(at % 4, -1, -1)]


def prepare(data: Path, users: int, files: dict[str, Any], now_ms: int) -> None:
    """Rows as the fold would have made them, written without the log that would have led to them."""
    store, workspace = Store(data / "db"), compile_workspace(read_definitions(files), 0)
    batch = store.batch()
    batch.put("meta", b"partitions", str(PARTITIONS).encode())
    store.write(batch)
    states = [PartitionState(store, partition) for partition in range(PARTITIONS)]
    for at in range(users):
        if at % TELL_ROWS == 0:
            say(f"{at:,} of {users:,} users written")
        name = f"user-{at:07d}"
        state = states[partition_of(name.encode(), PARTITIONS)]
        times_ms = likes(at, now_ms)
        user = new_user(times_ms[0])
        for item, time_ms in enumerate(times_ms):
            event = CustomEvent("like", time_ms, {})
            decide_event(user, name, event, Cause("made", 0, at, item), time_ms, workspace, is_new=not item)
        state.put(name, user, None)
        state.position.totals.users += 1
        state.position.version = 0
        if state.changed >= BATCH_ROWS:
            _write(store, state)
    for state in states:
        _write(store, state)
    store.close()


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"scan: {text}", file=sys.stderr, flush=True)


def _write(store: Store, state: PartitionState) -> None:
    batch = store.batch()
    state.stage(batch)
    store.write(batch)


def settings_of(data: Path, **more: Any) -> Settings:  # any setting
    """The settings of a node without HTTP."""
    return Settings(data=data, partitions=PARTITIONS, http="", **more)


async def apply(data: Path, *workspaces: dict[str, Any]) -> None:
    """Put workspaces into force in a folder where nothing runs."""
    node = Node(settings_of(data), SystemClock())
    await node.connect()
    for files in workspaces:
        await node.workspaces.apply(read_definitions(files))
    await node.disconnect()


def start(data: Path) -> subprocess.Popen[bytes]:
    """A node on the folder, that ends when everything is done; its scan may go as fast as it can."""
    own = {"DATA": str(data), "PARTITIONS": str(PARTITIONS), "HTTP": "", "SCAN_USERS_PER_S": "1000000"}
    rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    command = [sys.executable, "-m", "tests.agents.run_once"]
    environ = {**rest, **{f"HEADRACE_{name}": value for name, value in own.items()}}
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=sys.stderr)


async def share_done(data: Path) -> float:
    """The share of users that the scan has decided; -1 while nobody answers, or a process that is ending does."""
    try:
        client = await ControlClient.connect(data)
        rows = await client.ask("scans", {})
    except (OSError, ConnectionError):
        return -1.0
    client.close()
    users = sum(row["users"] for row in rows)
    return sum(row["decided"] for row in rows if row["built_version"] == 1) / users if users else -1.0


def peak_mib(process: subprocess.Popen[bytes]) -> int:
    """The largest resident memory of a process so far."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) // 1024 if found else 0


async def proof(data: Path, users: int) -> dict[str, Any]:
    """Prepare, change, kill twice, end, compare."""
    now_ms = time.time_ns() // 1_000_000
    began = time.perf_counter()
    await apply(data, OLD)
    prepare(data, users, OLD, now_ms)
    await apply(data, NEW)
    prepared_s, peak, began = time.perf_counter() - began, 0, time.perf_counter()
    killed, code = [], -1
    for share in (*KILLS_AT, 2.0):
        process = start(data)
        told = time.perf_counter()
        while process.poll() is None:
            done = await share_done(data)
            peak = max(peak, peak_mib(process))
            if time.perf_counter() - told > TELL_S:
                told = time.perf_counter()
                say(f"{max(0.0, done):.0%} of the users decided")
            if done >= share:
                process.send_signal(signal.SIGKILL)
                killed.append(round(done, 3))
                say(f"killed at {done:.1%}")
                process.wait()
            await asyncio.sleep(0.05)
        code = process.returncode
    scan_s = time.perf_counter() - began
    assert code == 0
    return {
        "users": users,
        "prepared_s": round(prepared_s, 1),
        "scan_s_with_two_restarts": round(scan_s, 1),
        "users_per_s": round(users / scan_s),
        "killed_at": killed,
        "peak_mib": peak,
        **compare(data, users, now_ms),
    }


def compare(data: Path, users: int, now_ms: int) -> dict[str, Any]:
    """Every user against what the history says at the partition's switch, or when a window has ended since."""
    say("comparing")
    store = Store(data / "db")
    view, wrong, seen, members, crossed = UsersView(store), 0, 0, 0, 0
    for partition in range(PARTITIONS):
        position = view.position(partition)
        assert position.scan is not None
        assert position.scan.ended_ms is not None
        totals = position.totals
        crossed += sum(totals.entered.get(name, 0) - totals.left.get(name, 0) for name in ("many", "late"))
        for name, row in view.raw(partition):
            times_ms = likes(int(name[5:]), now_ms)
            late = times_ms[-1] + 30 * DAY_MS > position.clock_ms
            expected = {one for one, holds in (("many", len(times_ms) > 2), ("late", late)) if holds}
            found = set(decode_row(row).memberships)
            seen, wrong, members = seen + 1, wrong + (found != expected), members + len(found)
    store.close()
    return {"compared": seen, "wrong": wrong, "memberships": members, "entered_less_left": crossed}


def main() -> int:
    """Run the proof on a folder of its own, and print what was seen; 1 where a single user is not as it has to be."""
    data = Path(tempfile.mkdtemp(prefix="headrace-scan-"))
    try:
        found = uvloop.run(proof(data, int(sys.argv[1]) if len(sys.argv) > 1 else USERS))
    finally:
        shutil.rmtree(data, ignore_errors=True)
    print(json.dumps(found))
    is_whole = found["compared"] == found["users"] and found["entered_less_left"] == found["memberships"]
    return int(found["wrong"] != 0 or not is_whole or len(found["killed_at"]) != len(KILLS_AT))


if __name__ == "__main__":
    sys.exit(main())
