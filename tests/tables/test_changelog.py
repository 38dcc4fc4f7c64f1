"""The changelog: applied or loaded in whatever parts, it leaves what was written last, and a due index true to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.errors import BadState, OutsideFailing
from streams.profiles.row import decode_timer, decode_timers, encode_row, new_user
from tables import bulk_load
from tables import changelog as changelog_module
from tables.bulk_load import BulkLoad, Newest
from tables.changelog import Changelog, due_key
from tables.positions import read_position, stage_position
from tables.replayed import Replayed
from tables.store import FAMILIES, Batch, Store

PARTITION = 3
PREFIX = PARTITION.to_bytes(2, "big")
AFTER_MS = 1_700_000_000_000

Rows = dict[tuple[str, bytes], bytes]
Parts = list[list[tuple[bytes, bytes | None]]]


def row(timer_ms: int | None) -> bytes:
    """A user's row with a timer armed."""
    user = new_user(AFTER_MS)
    user.timer_ms = timer_ms
    return encode_row(user)


rows_of_users = st.one_of(st.none(), st.one_of(st.none(), st.integers(0, 5)).map(row))
users = st.tuples(st.integers(0, 6).map(lambda number: b"u" + PREFIX + b"user-%d" % number), rows_of_users)
others = st.tuples(
    st.sampled_from([b"d" + b"o" + PREFIX + b"one", b"d" + b"f" + PREFIX + b"two", b"m" + b"position\0" + PREFIX]),
    st.one_of(st.none(), st.binary(max_size=3)),
)
parts_of_records = st.lists(st.lists(st.one_of(users, others), max_size=8), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store for all tests, since opening one takes longer than any of them; see `emptied`."""
    store = Store(tmp_path_factory.mktemp("changelog") / "db")
    yield store
    store.close()


def emptied(store: Store) -> Store:
    """The same, with nothing of our partition and its neighbour in it."""
    for partition in (PARTITION, PARTITION + 1):
        Changelog(store, partition).wipe()
    assert contents(store) == {}
    return store


def contents(store: Store) -> Rows:
    """Everything but what says how it came there."""
    return {
        (family, key): value
        for family in FAMILIES
        for key, value in store.scan(family, b"", b"\xff" * 20)
        if not key.startswith(b"changelog\0")
    }


def oracle(parts: Parts) -> Rows:
    """The same by a dict: the last value of each key, and an entry for each row's timer."""
    last: Newest = {}
    for part in parts:
        last.update(part)
    families = {b"u": "users", b"d": "dispatches", b"m": "meta", b"r": "reports"}
    found = {(families[key[:1]], key[1:]): value for key, value in last.items() if value is not None}
    timers = {key: decode_timer(value) for (family, key), value in found.items() if family == "users"}
    return found | {("due", due_key(key, timer)): b"" for key, timer in timers.items() if timer is not None}


@pytest.mark.parametrize("piece_records", [1, 2, 3, 500])
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts_of_records)
def test_a_load_leaves_what_was_written_last(
    opened: Store, monkeypatch: pytest.MonkeyPatch, piece_records: int, parts: Parts
) -> None:
    """Loaded in any parts and pieces, with keys written and deleted across them, the store is what a dict says."""
    monkeypatch.setattr(bulk_load, "PIECE_RECORDS", piece_records)
    store = emptied(opened)
    changelog = Changelog(store, PARTITION)
    load = BulkLoad(store, changelog, 2)  # so few slots that keys are suspected for nothing, too
    for part in parts:
        load.take(dict(part))
    assert Changelog(store, PARTITION).is_loading
    load.finish(77, AFTER_MS)

    assert contents(store) == oracle(parts)
    after = Changelog(store, PARTITION)
    assert (after.next_offset, after.append_ms, after.is_loading) == (77, AFTER_MS, False)


@settings(max_examples=40, deadline=None)
@given(parts_of_records, st.integers(0, 5))
def test_applied_twice_is_applied_once(
    opened: Store, parts: list[list[tuple[bytes, bytes | None]]], again_from: int
) -> None:
    """Applied in any parts, and from some part on a second time as after a crash, the store is what a dict says."""
    store = emptied(opened)
    for part in [*parts, *parts[again_from:]]:
        Changelog(store, PARTITION).apply(dict(part), 77, AFTER_MS)

    assert contents(store) == oracle(parts)
    assert Changelog(store, PARTITION).next_offset == 77


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts_of_records, st.integers(0, 6))
def test_what_a_crash_cuts_off_is_applied_again(
    opened: Store, monkeypatch: pytest.MonkeyPatch, parts: Parts, writes: int
) -> None:
    """Cut off between any two of its batches, an application leaves the old offset, and all of it again is right."""
    monkeypatch.setattr(changelog_module, "APPLY_RECORDS", 2)
    newest = {key: value for part in parts for key, value in part}
    store = emptied(opened)
    write, left = store.write, iter(range(writes))

    def failing(batch: Batch) -> None:
        if next(left, None) is None:
            raise OutsideFailing("cut off here")
        write(batch)

    Changelog(store, PARTITION).apply(dict(parts[0]), 5, AFTER_MS)
    with monkeypatch.context() as cut:
        cut.setattr(store, "write", failing)
        with suppress(OutsideFailing):
            Changelog(store, PARTITION).apply(newest, 77, AFTER_MS)
    whole = Changelog(store, PARTITION).next_offset == 77
    assert contents(store) == oracle(parts) or not whole, "the offset stands before what it stands for"
    Changelog(store, PARTITION).apply(newest, 77, AFTER_MS)

    assert contents(store) == oracle(parts)


def test_a_load_that_was_cut_off_is_known_and_wiped_whole(opened: Store) -> None:
    """A process that dies while it loads leaves a mark; what it loaded is wiped, and no neighbour's row with it."""
    store = emptied(opened)
    neighbour = Changelog(store, PARTITION + 1)
    neighbour.apply({b"u" + (PARTITION + 1).to_bytes(2, "big") + b"other": row(5)}, 1, AFTER_MS)
    before = contents(store)
    changelog = Changelog(store, PARTITION)
    BulkLoad(store, changelog, 10).take({b"u" + PREFIX + b"one": row(4), b"do" + PREFIX + b"two": b"2"})

    found = Changelog(store, PARTITION)
    assert found.is_loading
    assert found.next_offset == 0
    assert contents(store) != before
    found.wipe()
    assert contents(store) == before
    assert not Changelog(store, PARTITION).is_loading


def test_a_wipe_takes_a_partitions_marks_of_replays_and_no_others(opened: Store) -> None:
    """Whatever the offset of a dead letter ends with, its mark goes with its own partition alone."""
    store = emptied(opened)
    offsets = [0, PARTITION, (PARTITION << 16) + PARTITION + 1, 65_536 * 7 + PARTITION]
    marks = {partition: Replayed(store, partition) for partition in (PARTITION, PARTITION + 1)}
    batch = store.batch()
    stage_position(batch, "users", "mailbox", PARTITION, 5)
    stage_position(batch, "users", "mailbox", PARTITION + 1, 6)
    for each in marks.values():
        for offset in offsets:
            each.stage(batch, offset, AFTER_MS)
    store.write(batch)

    Changelog(store, PARTITION).wipe()

    assert list(marks[PARTITION].between(0, 1 << 40)) == []
    assert list(marks[PARTITION + 1].between(0, 1 << 40)) == sorted(offsets)
    found = [read_position(store, "users", "mailbox", partition) for partition in marks]
    assert found == [0, 6]


def test_what_holds_nothing_is_wiped_without_a_trace(tmp_path: Path) -> None:
    """A wipe before the first load leaves no deletion in RocksDB: the only file is that of the rows loaded."""
    store = Store(tmp_path / "db")
    changelog = Changelog(store, PARTITION)
    changelog.wipe()
    BulkLoad(store, changelog, 10).take({b"u" + PREFIX + b"one": row(None)})
    files = list(tmp_path.rglob("*.sst"))
    store.close()
    assert len(files) == 1


@pytest.mark.parametrize("key", [b"", b"a", b"f", b"zz"])
def test_a_foreign_record_is_refused(opened: Store, key: bytes) -> None:
    """A record that no batch of ours can have written stops a restore in both its ways."""
    store = emptied(opened)
    changelog = Changelog(store, PARTITION)
    rows: Newest = {key: b"?", b"u" + PREFIX + b"one": row(None), b"do" + PREFIX: b"", b"mx\0" + PREFIX: b""}
    with pytest.raises(BadState, match="unknown family"):
        changelog.apply(rows, 1, AFTER_MS)
    with pytest.raises(BadState, match="unknown family"):
        BulkLoad(store, changelog, 10).take(rows)


@pytest.mark.parametrize("bad", [b"", b"?", row(5)[:-1], b"\xdc\x00\x05\x02\x01\x01\x01\xc0"])
def test_a_row_that_does_not_decode_stops_a_load(opened: Store, bad: bytes) -> None:
    """A row among good ones that is none, or of a later version, is called bad state, not a disk that refuses."""
    store = emptied(opened)
    rows: Newest = {b"u" + PREFIX + b"user-%d" % number: row(number) for number in range(9)}
    rows[b"u" + PREFIX + b"user-5"] = bad
    changelog = Changelog(store, PARTITION)
    with pytest.raises(BadState, match="user row"):
        BulkLoad(store, changelog, 10).take(rows)
    assert changelog.is_loading


@given(st.lists(st.one_of(st.none(), st.integers(0, 2**63)), max_size=20))
def test_many_timers_are_read_as_one_by_one(timers: list[int | None]) -> None:
    """What is read of many rows at once is what each row says, however many there are."""
    assert decode_timers([row(timer) for timer in timers]) == timers
