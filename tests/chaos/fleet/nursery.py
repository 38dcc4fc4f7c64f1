"""The products under test: one process that has everything imported, and forks the lives of all workers.

Each line on stdin is JSON (name, environment, arguments, point, call, mark, bug, log, freezes, through). Each line on
stdout is `name pid` when a life has begun, and `name pid code` when it has ended. All lives end with this process.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

from tests.chaos import points
from tests.chaos.fleet.line import lead_through
from tests.chaos.fleet.planted import plant
from tests.chaos.fleet.steps import freezes, steps, watch_mails, watch_releases

LOOK_S = 0.02
LINE_BYTES = 1 << 16
PR_SET_PDEATHSIG = 1


def live(order: dict[str, Any]) -> int:
    """One life, in the forked process."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if int(order["through"]):
        lead_through(int(order["through"]))
    watch_mails()
    watch_releases()
    if order["bug"]:
        plant(order["bug"])
    if order["point"]:
        act = freezes() if order["freezes"] else points.die
        points.arm(steps()[order["point"]], order["call"], Path(order["mark"]), act)
    code: int = importlib.import_module("app").main(order["arguments"])
    return code


def main() -> None:
    """Serve until stdin closes."""
    for name in ("app", "agents.node", "agents.process", "agents.engine.kafka.transport", "uvloop"):
        importlib.import_module(name)
    names: dict[int, str] = {}
    rest = b""
    while True:
        if select.select([0], [], [], LOOK_S)[0]:
            part = os.read(0, LINE_BYTES)
            if not part:
                return
            *lines, rest = (rest + part).split(b"\n")
            for order in map(json.loads, lines):
                pid = os.fork()
                if not pid:
                    os._exit(live(order))
                names[pid] = order["name"]
                print(order["name"], pid, flush=True)
        while names:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            print(names.pop(pid), pid, os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
