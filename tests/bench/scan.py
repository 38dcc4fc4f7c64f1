"""A definition over many users: the proof that it is right after kills, and what it does to events meanwhile.

`python -m tests.bench.scan proof [USERS]` prepares that many rows (a million by default), changes the workspace,
kills the process with -9 twice amid the scan, and holds every user to memberships computed without Headrace.
`python -m tests.bench.scan latency` sends events on a schedule, by turns while nothing else happens and while a
scan runs at its default rate, and prints the percentiles of each turn.
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
from statistics import median
from typing import Any, Final

import uvloop

from agents.node import Node
from agents.web.control import ControlClient
from config.clock import SystemClock
from config.settings import Settings
from streams.codec import partition_of
from streams.definitions import Definitions, read_definitions
from streams.events import CustomEvent
from streams.mailbox import Cause
from streams.profiles.row import decode_row, new_user
from streams.times import DAY_MS
from streams.users import decide_event
from streams.workspace import compile_workspace
from tables.partition import PartitionState, UsersView
from tables.store import Store
from tests.bench.subject import Stamps, _append, percentiles
from tests.bench.workload import PROBE, Entry, definitions, with_probe

ROOT: Final = Path(__file__).parents[2]
PARTITIONS: Final = 8
USERS: Final = 1_000_000
BATCH_ROWS: Final = 2_000
KILLS_AT: Final = (0.3, 0.6)
LATENCY_USERS: Final = 60_000
TURNS: Final = 3
TURN_S: Final = 8.0
PROBES_PER_S: Final = 50

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
    return subprocess.Popen(command, cwd=ROOT, env={**rest, **{f"HEADRACE_{k}": v for k, v in own.items()}})


async def share_done(data: Path) -> float:
    """The share of users that the scan has decided; -1 while nobody answers."""
    try:
        client = await ControlClient.connect(data)
        rows = await client.ask("scans", {})
    except (OSError, ConnectionError):
        return -1.0
    client.close()
    return float(sum(row["decided"] for row in rows if row["built_version"] == 1) / sum(row["users"] for row in rows))


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
        while process.poll() is None:
            done = await share_done(data)
            peak = max(peak, peak_mib(process))
            if done >= share:
                process.send_signal(signal.SIGKILL)
                killed.append(round(done, 3))
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
    store = Store(data / "db")
    view, wrong, seen, members = UsersView(store), 0, 0, 0
    for partition in range(PARTITIONS):
        position = view.position(partition)
        assert position.scan is not None
        assert position.scan.ended_ms is not None
        for name, row in view.raw(partition):
            times_ms = likes(int(name[5:]), now_ms)
            late = times_ms[-1] + 30 * DAY_MS > position.clock_ms
            expected = {one for one, holds in (("many", len(times_ms) > 2), ("late", late)) if holds}
            found = set(decode_row(row).memberships)
            seen, wrong, members = seen + 1, wrong + (found != expected), members + len(found)
    store.close()
    return {"compared": seen, "wrong": wrong, "memberships": members}


def turn_files(turn: int) -> Definitions:
    """The workspace of a turn: every user has to be decided anew."""
    files = {**definitions("J2"), "segments/turn.yaml": {"name": "turn", "filter": _turn_tree(turn)}}
    return read_definitions(with_probe(files))


def _turn_tree(turn: int) -> dict[str, Any]:
    return {"event": {"name": "like", "at_least": 1 + turn % 2, "within": f"{30 + turn}d"}}


async def probes(node: Node, stamps: Stamps, seconds: float, first: int) -> list[float]:
    """Send probes on a schedule; how long each took from its due time to the sink, in seconds."""
    began, at, count = time.perf_counter(), 0, int(seconds * PROBES_PER_S)
    names = [f"{PROBE}-{first + number:07d}" for number in range(count)]
    while at < count:
        while at < count and time.perf_counter() >= began + at / PROBES_PER_S:
            name = names[at]
            body = {"type": "event", "name": PROBE, "external_id": name, "properties": {"probe": name}}
            key = name.encode()
            stamps.due[name] = began + at / PROBES_PER_S
            await _append(node, [Entry(partition_of(key, PARTITIONS), key, json.dumps(body).encode())])
            at += 1
        await asyncio.sleep(0.001)
    deadline = time.perf_counter() + 20
    while any(name not in stamps.sent for name in names) and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    return [stamps.sent[name] - stamps.due[name] for name in names]


async def latency(data: Path) -> list[dict[str, Any]]:
    """Turns without and with a scan, one after the other."""
    node = Node(settings_of(data), SystemClock())
    await node.connect()
    await node.workspaces.apply(turn_files(0))
    await node.disconnect()
    prepare(data, LATENCY_USERS, OLD, time.time_ns() // 1_000_000)
    node = Node(settings_of(data), SystemClock())
    node.wire()
    await node.start()
    stamps = Stamps()
    providers = node.delivery._providers
    providers["log"] = stamps.provider(providers["log"])
    await probes(node, stamps, 2.0, 0)
    rows = []
    for turn in range(1, TURNS + 1):
        idle = await probes(node, stamps, TURN_S, turn * 100_000)
        await node.workspaces.apply(turn_files(turn))
        while not node.users.is_building:  # noqa: ASYNC110  # the fold sets no event
            await asyncio.sleep(0.01)
        began, before = time.perf_counter(), decided(node)
        busy = await probes(node, stamps, TURN_S, turn * 100_000 + 50_000)
        rate = (decided(node) - before) / (time.perf_counter() - began)
        rows.append({"idle_ms": percentiles(idle), "scan_ms": percentiles(busy), "scan_users_per_s": round(rate)})
        print(json.dumps(rows[-1]), file=sys.stderr)
        await node.quiesce()
    await node.stop()
    return rows


def decided(node: Node) -> int:
    """Rows that the scans of the newest version have passed."""
    return sum(row["decided"] for row in node.queries.scans() if row["built_version"] == node.workspaces.latest_version)


def main() -> int:
    """Run one of the two on a folder of its own, and print what was seen."""
    data = Path(tempfile.mkdtemp(prefix="headrace-scan-"))
    try:
        if sys.argv[1:2] == ["latency"]:
            rows = uvloop.run(latency(data))
            p99 = {kind: median(row[f"{kind}_ms"]["p99"] for row in rows) for kind in ("idle", "scan")}
            print(json.dumps({"turns": rows, "median_p99_ms": p99}))
            return 0
        found = uvloop.run(proof(data, int(sys.argv[2]) if len(sys.argv) > 2 else USERS))
        print(json.dumps(found))
        return int(found["wrong"] != 0 or found["compared"] != found["users"])
    finally:
        shutil.rmtree(data, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
