"""Read by every Python below the story: its wall clock is the machine's plus what the story's clock file says."""

import mmap
import os
import struct
import time


def _shift(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123 - it runs before anything else in every process
        offset = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
    real = time.time_ns

    def time_ns() -> int:
        offset_ms: int = struct.unpack_from(">q", offset)[0]
        return real() + offset_ms * 1_000_000

    time.time_ns = time_ns


if os.environ.get("MEL_CLOCK"):
    _shift(os.environ["MEL_CLOCK"])
