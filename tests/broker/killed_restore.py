"""`python -m tests.broker.killed_restore FOLDER PARTITION`: a restore that is killed when it has loaded three parts."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from agents.engine.kafka import fetches, restore
from config.clock import SystemClock
from config.settings import load_settings
from tables.bulk_load import BulkLoad, Newest
from tables.store import Store

PARTS: Final = 3
FETCH_BYTES: Final = 40_000
BULK_BYTES: Final = 100_000


class _Killed(BulkLoad):
    """Loads as it should, and ends the process behind a part."""

    parts = 0

    def take(self, newest: Newest) -> None:
        super().take(newest)
        self.parts += 1
        if self.parts == PARTS:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    vars(restore)["BulkLoad"] = _Killed
    restore.BULK_BYTES = BULK_BYTES  # type: ignore[misc]
    fetches.FETCH_BYTES = FETCH_BYTES  # type: ignore[misc]
    store = Store(Path(sys.argv[1]))
    asyncio.run(restore.restore(load_settings(), store, int(sys.argv[2]), SystemClock().now_ms()))
