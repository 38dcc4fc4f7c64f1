"""Kill -9 at a chosen step, from inside the process, so that a seed always hits the same place."""

import os
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NoReturn

from channels.outbox import Outbox
from streams.fold import Fold
from tables.store import Store

# Step -> where it lies; `write` is a commit, `apply` one letter, `scan` a few rows, `append` the outbox,
# `link` an export file's name.
STEPS: dict[str, tuple[type, str]] = {
    "write": (Store, "write"),
    "apply": (Fold, "apply"),
    "scan": (Fold, "build_next"),
    "append": (Outbox, "_append"),
    "link": (Path, "hardlink_to"),
}


def kill_at(plan: str) -> None:
    """Arrange the end of this process: `write:7:before` dies instead of its seventh commit, `…:after` just after it."""
    step, number, side = plan.split(":")
    owner, name = STEPS[step]
    real: Callable[..., object] = getattr(owner, name)
    numbers, last = count(1), int(number)

    def counted(*args: object, **kwargs: object) -> object:
        is_last = next(numbers) == last  # of this call: others begin, in other threads, before it has ended
        if is_last and side == "before":
            die()
        answer = real(*args, **kwargs)
        if is_last:
            die()
        return answer

    replace(owner, name, counted)


def replace(owner: object, name: str, new: object) -> None:
    """Put something else in the place of an attribute, for as long as this process lives."""
    setattr(owner, name, new)


def die() -> NoReturn:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("kill -9 returned")
