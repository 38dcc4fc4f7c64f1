"""The store stays cheap to ask however many rows it holds."""

import random
from pathlib import Path

import pytest

from tables import store as store_module
from tables.store import Store

ROWS = 500_000
SPREAD = 7_919
BATCH_ROWS = 20_000
ASKED = 200
BYTES_PER_GET_MAX = 16 * 1024
CACHE_BYTES = 2 * 1024 * 1024


def read_bytes() -> int:
    """What this process has read of files so far, from memory of the kernel or not."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts what a process reads")
def test_a_get_reads_a_block_and_not_the_filter_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among half a million rows in one file, a get reads a few blocks: the file's filter is read in pieces."""
    monkeypatch.setattr(store_module, "CACHE_BYTES", CACHE_BYTES)
    store = Store(tmp_path)
    for first in range(0, ROWS, BATCH_ROWS):
        batch = store.batch()
        for at in range(first, first + BATCH_ROWS):
            batch.put("users", b"%07d" % (at * SPREAD % ROWS), b"row")  # files that overlap become one
        store.write(batch)
    store._families["users"].compact_range(None, None)
    keys = [b"%07d" % at for at in random.Random(3).sample(range(ROWS), ASKED)]

    before = read_bytes()
    values = [store.get("users", key) for key in keys]
    read = (read_bytes() - before) / ASKED
    store.close()

    assert values == [b"row"] * ASKED
    assert read < BYTES_PER_GET_MAX
