"""The interpreter, set up for a loop that must never stand still: garbage collection and the lock of its threads."""

import gc
import sys
from typing import Final

FULL_COLLECTION_AFTER: Final = 1_000
"""Collections of the middle generation before a full one; Python's own 10 is for programs that may stand still."""

SWITCH_S: Final = 0.0001
"""How long one thread keeps another waiting for the interpreter's lock; Python's own 5 ms is half a stall.

A busy loop gives the lock away only when asked to, and a thread that syncs a file asks for it after each call of the
system, a dozen times in all: this is most of what a sync costs beside a fan-out (`docs/decisions/0021-lanes.md`)."""


def set_up_interpreter() -> None:
    """Call once, when everything long-lived is loaded; later garbage is collected as ever, but all of it less often.

    A full collection walks every container it knows of while the loop stands: about 10 ms per 100,000. What
    modules, settings and definitions hold is most of them, and never garbage. Records and rows, which come and
    go by the thousand, are declared without collection (`gc=False`): they can be in no cycle.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION_AFTER)
    sys.setswitchinterval(SWITCH_S)
