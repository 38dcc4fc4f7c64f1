"""A process that replays a folder's dead letters as the command does, and is hit on the way.

`python -m tests.agents.replay_once FOLDER [STEP]`: a step of `crashes` kills it there; `signal:N:M` has it sent
signal N after M portions.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import agents.web.replay
from agents.web import dead_letters
from agents.web.session import Session
from config.clock import ManualClock
from streams.events import JSONValue
from streams.times import HOUR_MS
from tests.agents.crashes import kill_at, replace
from tests.agents.nodes import NOW_MS, environment

PAGE = 20


def signal_after(number: int, portions: int) -> None:
    """Send this process a signal as it asks for so many portions."""
    real, asked = Session.ask, 0

    async def ask(session: Session, command: str, args: dict[str, Any]) -> JSONValue:
        nonlocal asked
        asked += command == "replay"
        if asked == portions:
            os.kill(os.getpid(), number)
        return await real(session, command, args)

    replace(Session, "ask", ask)


if __name__ == "__main__":
    folder, *steps = sys.argv[1:]
    os.environ.update(environment(Path(folder)))
    replace(dead_letters, "PAGE_RECORDS", PAGE)
    replace(agents.web.replay, "PORTION_LETTERS", 2 * PAGE)
    replace(sys.modules["config.clock"], "SystemClock", lambda: ManualClock(NOW_MS + 2 * HOUR_MS))
    for step in steps:
        if step.startswith("signal:"):
            signal_after(*map(int, step.split(":")[1:]))
        else:
            kill_at(step)
    sys.argv = ["app.py", "dead-letters", "replay", "--json"]
    runpy.run_path("app.py", run_name="__main__")
