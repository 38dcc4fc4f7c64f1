"""The product under test: a process that has everything imported, and forks one life of it after the other.

Each line on stdin is JSON (environment, arguments, point, call, mark, bug, inside, seed, folder, log); the answer
is the life's process id at once, and its exit code when it has ended.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from tests.chaos.inside import befall
from tests.chaos.planted import plant
from tests.chaos.points import arm, points_of


def live(order: dict[str, Any]) -> int:
    """One life, in the forked process."""
    os.environ.clear()
    os.environ.update(order["environment"])
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((empty, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    if order["bug"]:
        plant(order["bug"])
    if order["inside"]:
        befall(order["inside"], order["seed"], Path(order["folder"]))
    if order["point"]:
        arm(points_of(order["transport"])[order["point"]], order["call"], Path(order["mark"]))
    code: int = importlib.import_module("app").main(order["arguments"])
    return code


PREPARED: Final = (
    *("app", "agents.node", "agents.process", "agents.engine.kafka.transport", "agents.engine.kafka.membership"),
    *("faust.app.router", "faust.assignor.partition_assignor", "faust.events", "faust.fixups.django", "faust.topics"),
    *("faust.stores.base", "faust.tables.objects", "faust.tables.sets", "faust.transport.utils", "faust.worker"),
    *("mode.debug", "mode.worker", "uvloop"),
)
"""What a life imports sooner or later: its start is quick where this is done already."""


def main() -> None:
    """Serve until stdin closes."""
    for name in PREPARED:
        importlib.import_module(name)
    inspect.getmodule(main.__code__)  # fills its cache of files, for which every life would look at each module
    gc.collect()
    gc.freeze()  # so that no collection of a life copies the pages that it shares with us
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            os._exit(live(json.loads(line)))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
