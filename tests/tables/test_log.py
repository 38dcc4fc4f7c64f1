"""The embedded log reads the same from its tail in memory as from the store, whatever was appended how."""

import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.records import Output, Record
from tables import log as log_module
from tables.log import Log
from tables.store import Store

PLACE = ("events", 3)


class Bounds(NamedTuple):
    """Where to read, and how much at most."""

    offset: int
    records_max: int
    bytes_max: int


outputs = st.builds(
    Output,
    st.just(PLACE[0]),
    st.just(PLACE[1]),
    st.none() | st.binary(max_size=4),
    st.binary(max_size=300),
    st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2).map(tuple),
)
appends = st.lists(st.lists(outputs, min_size=1, max_size=6), min_size=1, max_size=6)
reads = st.lists(st.builds(Bounds, st.integers(0, 36), st.integers(1, 8), st.integers(1, 900)), min_size=1, max_size=6)


def append(store: Store, log: Log, group: list[Output], now_ms: int) -> None:
    """Append as a commit does."""
    batch = store.batch()
    log.stage(batch, group, now_ms)
    store.write(batch)
    log.publish()


def expected(groups: list[list[Output]], bounds: Bounds) -> list[Record]:
    """What a reader is owed: consecutive records within the bounds, at least one if there is one."""
    flat = [(at, output) for at, group in enumerate(groups) for output in group]
    found: list[Record] = []
    size = 0
    for offset, (at, output) in list(enumerate(flat))[bounds.offset :]:
        size += len(output.value) + log_module._BATCH_OVERHEAD
        if found and (len(found) >= bounds.records_max or size > bounds.bytes_max):
            break
        found.append(Record(offset, 1_000 + at, output.key, output.value, output.headers))
    return found


@settings(max_examples=40)
@given(appends, reads)
def test_tail_and_store_read_alike(groups: list[list[Output]], reads: list[Bounds]) -> None:
    """A log that appended, and one opened afterwards, both give exactly the records that were appended."""
    with TemporaryDirectory() as folder:
        store = Store(Path(folder))
        log = Log(store)
        for at, group in enumerate(groups):
            append(store, log, group, 1_000 + at)
        for bounds in reads:
            wanted = expected(groups, bounds)
            assert log.read(*PLACE, *bounds) == wanted
            assert Log(store).read(*PLACE, *bounds) == wanted
        store.close()


def test_what_left_the_tail_is_read_from_the_store(tmp_path: Path) -> None:
    """Of more than the tail holds, every reader gets the same records, however far behind it is."""
    dice = random.Random(7)
    store = Store(tmp_path)
    log = Log(store)
    groups: list[list[Output]] = []
    for at in range(60):
        sizes = [dice.choice((10, 3_000, 90_000, 600_000)) for _ in range(dice.randint(1, 3))]
        groups.append([Output(*PLACE, None, bytes([at]) * size) for size in sizes])
        append(store, log, groups[-1], 1_000 + at)
        for bounds in (Bounds(dice.randint(0, 2 * at + 1), dice.randint(1, 9), 200_000) for _ in range(8)):
            assert log.read(*PLACE, *bounds) == expected(groups, bounds)
    store.close()


def test_nothing_is_read_before_it_is_written(tmp_path: Path) -> None:
    """What is staged shows to no reader until its batch is written and published."""
    store = Store(tmp_path)
    log = Log(store)
    append(store, log, [Output(*PLACE, None, b"one")], 1)
    batch = store.batch()
    log.stage(batch, [Output(*PLACE, None, b"two")], 2)

    assert [record.value for record in log.read(*PLACE, 0)] == [b"one"]
    store.write(batch)
    log.publish()
    assert [record.value for record in log.read(*PLACE, 0)] == [b"one", b"two"]
    store.close()
