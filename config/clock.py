"""The only file that reads the wall clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Something that knows the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC; may step back when the machine's clock is set."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that moves only when told to, for tests."""

    def __init__(self, now_ms: int) -> None:
        """Start at a time."""
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The time as last set."""
        return self._now_ms

    def advance(self, milliseconds: int) -> None:
        """Move on (or, negative, back)."""
        self._now_ms += milliseconds
