"""`python -m tests.broker.planned_worker STEP…`: a worker that is hit at a step of `crashes`, else as app.py's.

`fail:N` raises an error of a handler instead of the fold's Nth letter.
"""

import runpy
import sys
from pathlib import Path
from typing import NoReturn

from streams.fold import Fold
from tests.agents.crashes import kill_at, replace


def fail_at(number: int) -> None:
    """Let the fold raise at its Nth letter."""
    real, left = Fold.apply, number

    def counted(*args: object) -> object:
        nonlocal left
        left -= 1
        return real(*args) if left else _refuse()  # type: ignore[arg-type]

    replace(Fold, "apply", counted)


def _refuse() -> NoReturn:
    raise ArithmeticError("planted: the handler does not know how to go on")


if __name__ == "__main__":
    for step in sys.argv[1:]:
        kind, _, number = step.partition(":")
        fail_at(int(number)) if kind == "fail" else kill_at(step)
    app = Path(__file__).parents[2] / "app.py"
    sys.argv = [str(app), "worker"]
    runpy.run_path(str(app), run_name="__main__")
