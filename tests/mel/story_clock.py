"""The story's clock: the machine's plus an offset in a file, which every process of the story reads.

A jump takes effect everywhere at once, since all of them look at the same eight bytes; time never stands still.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

from streams.times import format_time
from tests.broker.kafka import Broker

HERE = Path(__file__).resolve().parent / "clock"
BROKER_S_MAX = 200


class StoryClock:
    """Milliseconds since 1970, as everyone in the story sees them."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(8))
        self.path = path
        with path.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)

    @property
    def offset_ms(self) -> int:
        """How far it is ahead of the machine's."""
        found: int = struct.unpack_from(">q", self._offset)[0]
        return found

    def now_ms(self) -> int:
        """The time."""
        return time.time_ns() // 1_000_000 + self.offset_ms

    def jump_to(self, moment_ms: int) -> None:
        """From now on it is that time."""
        struct.pack_into(">q", self._offset, 0, moment_ms - time.time_ns() // 1_000_000)

    def __str__(self) -> str:
        return format_time(self.now_ms())

    @property
    def environment(self) -> dict[str, str]:
        """What puts a Python process, and those that it starts, on this clock."""
        return {"PYTHONPATH": str(HERE), "MEL_CLOCK": str(self.path)}

    def broker(self, folder: Path) -> Broker:
        """A broker on this clock, not started yet."""
        broker = Broker(folder, {"producer.id.expiration.ms": str(20 * 86_400_000)})
        broker.ready_s_max = BROKER_S_MAX
        broker.program = (f"-Dstory.clock={self.path}", str(HERE / "StoryKafka.java"))
        return broker
