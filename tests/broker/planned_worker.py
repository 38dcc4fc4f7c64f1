"""`python -m tests.broker.planned_worker STEP…`: a worker that is hit at a step of `crashes`, else as app.py's.

`fail:N` raises an error of a handler instead of the fold's Nth letter; `freeze:STEP` stops the process at the step,
as SIGSTOP does, and lets it go on there when it is woken.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from streams.fold import Fold
from tests.agents import crashes
from tests.agents.crashes import kill_at, replace

STOPPING_S: Final = 0.5
"""A process of several threads does not stop at once: until then this one must not go on."""


def fail_at(number: int) -> None:
    """Let the fold raise at its Nth letter."""
    real, left = Fold.apply, number

    def counted(*args: object) -> object:
        nonlocal left
        left -= 1
        return real(*args) if left else _refuse()  # type: ignore[arg-type]

    replace(Fold, "apply", counted)


def freeze_at(step: str) -> None:
    """Arrange that the process stops once, at a step."""
    stops = [signal.SIGSTOP]

    def stop() -> None:
        if stops:
            os.kill(os.getpid(), stops.pop())
            time.sleep(STOPPING_S)

    replace(crashes, "die", stop)
    kill_at(step)


def _refuse() -> NoReturn:
    raise ArithmeticError("planted: the handler does not know how to go on")


if __name__ == "__main__":
    for step in sys.argv[1:]:
        kind, _, rest = step.partition(":")
        if kind == "fail":
            fail_at(int(rest))
        elif kind == "freeze":
            freeze_at(rest)
        else:
            kill_at(step)
    app = Path(__file__).parents[2] / "app.py"
    sys.argv = [str(app), "worker"]
    runpy.run_path(str(app), run_name="__main__")
