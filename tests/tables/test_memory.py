"""The memory budget: one number scales what RocksDB and the decoded rows may take."""

from pathlib import Path

import pytest

from config.settings import MEMORY_BYTES, MEMORY_BYTES_MIN
from tables import recent
from tables.memory import rows_bytes, store_share
from tables.store import CACHE_BYTES, Store


@pytest.mark.parametrize("budget", [MEMORY_BYTES_MIN, MEMORY_BYTES, 4 * MEMORY_BYTES])
def test_the_budget_bounds_the_one_cache_of_all_families(tmp_path: Path, budget: int) -> None:
    """RocksDB's own figure is the budget's share, for families that share one cache and its write buffers."""
    store = Store(tmp_path / "db", store_share(budget))
    capacities = {family.property_int_value("rocksdb.block-cache-capacity") for family in store._families.values()}
    store.close()

    assert capacities == {CACHE_BYTES * budget // MEMORY_BYTES}


def test_rows_share_the_rest() -> None:
    """Eight partitions keep what they kept by default, and any number of them together no more than that."""
    assert rows_bytes(MEMORY_BYTES, 8) == recent.BYTES_MAX
    assert rows_bytes(MEMORY_BYTES, 64) * 64 == rows_bytes(MEMORY_BYTES, 1)
    assert rows_bytes(MEMORY_BYTES_MIN, 8) * 9 == pytest.approx(recent.BYTES_MAX, abs=9)
