"""Rhythm: how long a partition waits between two transactions, so that a process begins only so many a second."""

from time import perf_counter
from typing import Final

TRANSACTIONS_PER_S_MAX: Final = 160
GAP_S_MIN: Final = 0.005
BUSY_S: Final = 0.2


class Rhythm:
    """One per process. A partition that is alone at work commits every few milliseconds; eight share the budget."""

    def __init__(self) -> None:
        self._began: dict[int, float] = {}

    def begin(self, partition: int) -> None:
        """A partition begins a transaction."""
        self._began[partition] = perf_counter()

    def wait_s(self, partition: int) -> float:
        """How long the partition should still wait for its next; not above 0 where it need not.

        The budget is shared by the partitions that have committed lately, this one counted in.
        """
        now = perf_counter()
        busy = sum(now - began < BUSY_S for at, began in self._began.items() if at != partition) + 1
        return self._began.get(partition, -BUSY_S) + max(GAP_S_MIN, busy / TRANSACTIONS_PER_S_MAX) - now

    def forget(self, partition: int) -> None:
        """The partition is closed."""
        self._began.pop(partition, None)
