"""How long the event loop stands still while the demo runs, and what held it: `python -m tests.stalls`.

No test asserts these times, since a busy machine would decide them. Run it after a change that works on the
loop: it prints how late a timer of one millisecond came, told apart into what the loop's own thread computed
and what it waited for (other threads, the disk, the machine), and the stacks that were seen while it stood.
"""

import argparse
import asyncio
import gc
import shutil
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time, sleep, thread_time
from types import FrameType
from typing import Any

import uvloop

from agents.demo import Replay, result
from agents.node import Node
from config.clock import SystemClock
from config.settings import Settings
from config.workspace import DEMO_FOLDER

Answer = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 0.010
LOOK_S = 0.002
TIMER_S = 0.001
STACK_FRAMES = 7
SHOWN = 15


class Watch:
    """Samples of one loop: how late its timer came, and where its thread was while it was late."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.busy_s: list[float] = []
        self.gc_s: list[float] = []
        self.computing: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()
        self._seen: list[str] = []
        self._thread = threading.get_ident()
        self._beat = perf_counter()
        self._stop = threading.Event()
        self._gc_began = 0.0
        self._task: asyncio.Task[None] | None = None
        self._watcher = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Begin, inside the loop that is watched."""
        self._thread = threading.get_ident()
        self._task = asyncio.get_running_loop().create_task(self._probe())
        self._watcher.start()
        gc.callbacks.append(self._collecting)

    def stop(self) -> None:
        """End; call from anywhere."""
        self._stop.set()
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)

    async def _probe(self) -> None:
        while not self._stop.is_set():
            self._seen.clear()
            began, worked = perf_counter(), thread_time()
            self._beat = began
            await asyncio.sleep(TIMER_S)
            late_s = perf_counter() - began - TIMER_S
            self.late_s.append(max(0.0, late_s))
            self.busy_s.append(thread_time() - worked)
            if late_s > LIMIT_S:
                held = self.computing if self.busy_s[-1] > LIMIT_S else self.waiting
                held.update(set(self._seen) or {"(not seen: the thread held the interpreter, or did not run)"})

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = perf_counter()
        else:
            self.gc_s.append(perf_counter() - self._gc_began)
            if self.gc_s[-1] > LOOK_S:
                self._seen.append(f"(collecting garbage of generation {info['generation']})")

    def _look(self) -> None:
        while not self._stop.is_set():
            sleep(LOOK_S)
            if perf_counter() - self._beat > TIMER_S + LOOK_S:
                self._seen.append(_stack(sys._current_frames().get(self._thread)))

    def report(self) -> str:
        """The distribution and the stacks, for people."""
        lines = [f"{len(self.late_s):,} timers of {TIMER_S * 1e3:.0f} ms"]
        lines += [_distribution("late", self.late_s), _distribution("of it computing", self.busy_s)]
        lines.append(_distribution("collecting", self.gc_s))
        for held, why in ((self.computing, "computed"), (self.waiting, "waited for threads, disk or the machine")):
            lines.append(f"where its thread was while the loop stood longer than {LIMIT_S * 1e3:.0f} ms and {why}:")
            lines += [f"{count:6} {stack}" for stack, count in held.most_common(SHOWN)]
        return "\n".join(lines)


def _distribution(name: str, values_s: list[float]) -> str:
    ordered = sorted(values_s) or [0.0]
    shares = " ".join(
        f"p{share * 100:g} {ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3:.1f}"
        for share in (0.5, 0.9, 0.99, 0.999)
    )
    above = sum(value > LIMIT_S for value in ordered)
    return f"{name:<16} {shares} max {ordered[-1] * 1e3:.1f} ms; {above} above {LIMIT_S * 1e3:.0f} ms"


def _stack(frame: FrameType | None) -> str:
    """The innermost frames of ours, outermost first."""
    found: list[str] = []
    while frame is not None and len(found) < STACK_FRAMES:
        path = frame.f_code.co_filename
        if path.startswith(str(ROOT)) and "/.venv/" not in path:
            found.append(f"{Path(path).relative_to(ROOT)}:{frame.f_code.co_name}:{frame.f_lineno}")
        elif not found:
            found.append(f"[{Path(path).name}:{frame.f_code.co_name}]")
        frame = frame.f_back
    return " > ".join(reversed(found))


async def replay(folder: Path, watch: Watch | None) -> Answer:
    """The demo, as `demo --once` runs it; watched from the moment it takes events."""
    settings = Settings(data=folder, clock="stream", http="", workspace=DEMO_FOLDER)
    prepared = Replay(settings.partitions)
    node = Node(settings, SystemClock())
    node.wire()
    await node.start()
    if watch is not None:
        watch.start()
    await prepared.run(node.log, node, lambda sent, total, seconds: None)
    await node.export.flush()
    if watch is not None:
        watch.stop()
    line: Answer = await result(node.ask, prepared.seconds)
    await node.stop()
    return line


def main() -> int:
    """Run the demo once on a folder of its own and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-watch", action="store_true", help="only the demo's speed, for comparison")
    watch = None if parser.parse_args().no_watch else Watch()
    folder = Path(tempfile.mkdtemp(prefix="headrace-stalls-"))
    began_s = process_time()
    try:
        line = uvloop.run(replay(folder, watch))
    finally:
        if watch is not None:
            watch.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{line['seconds']} s, {line['events_per_s']:,} purchases/s, {process_time() - began_s:.1f} s of processor")
    if watch is not None:
        print(watch.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
