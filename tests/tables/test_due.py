"""The due index knows every armed timer at any moment, whatever of it is written already."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables import due as due_module
from tables.due import DueIndex
from tables.store import Batch, Store

USERS = 12
TIMES = 20

_moves = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.integers(0, USERS - 1), st.one_of(st.none(), st.integers(0, TIMES))),
        st.tuples(st.just("fire"), st.integers(0, TIMES), st.one_of(st.none(), st.integers(0, TIMES))),
        st.tuples(st.sampled_from(["look", "stage", "write", "reopen"]), st.just(0), st.none()),
    ),
    max_size=120,
)


class _Model:
    """The index beside a plain dictionary of timers, and the batch that is staged and not written yet."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = DueIndex(store, 0)
        self.timers: dict[str, int] = {}
        self.staged: Batch | None = None

    def due(self, until_ms: int) -> tuple[int, str] | None:
        return min(((at, user) for user, at in self.timers.items() if at <= until_ms), default=None)

    def move(self, user: str, new_ms: int | None) -> None:
        self.index.move(user, self.timers.pop(user, None), new_ms)
        if new_ms is not None:
            self.timers[user] = new_ms

    def fire(self, until_ms: int, new_ms: int | None) -> None:
        found = self.index.earliest(until_ms)
        assert found == self.due(until_ms)
        if found is not None:
            self.move(found[1], new_ms)

    def look(self) -> None:
        assert self.index.earliest_of_all() == min(self.timers.values(), default=None)

    def write(self) -> None:
        if self.staged is not None:
            self.store.write(self.staged)
            self.staged = None

    def stage(self) -> None:
        self.write()
        self.staged = self.store.batch()
        self.index.stage(self.staged)

    def reopen(self) -> None:
        self.stage()
        self.write()
        self.index = DueIndex(self.store, 0)


@settings(max_examples=100, deadline=None)
@given(_moves)
def test_the_index_is_a_plain_set_of_timers(moves: list[tuple[str, int, int | None]]) -> None:
    """Moved, fired, looked at between staging and writing, in chunks of three rows: always what a dictionary says."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(due_module, "CHUNK_ROWS", 3)
        store = Store(Path(folder))
        model = _Model(store)
        for what, number, new_ms in moves:
            if what == "move":
                model.move(f"u{number}", new_ms)
            elif what == "fire":
                model.fire(number, new_ms)
            else:
                getattr(model, what)()
        model.stage()
        model.look()
        model.write()
        while model.timers:
            model.fire(TIMES, None)
        model.look()
        store.close()


def test_a_look_between_stage_and_write_loses_no_timer(tmp_path: Path) -> None:
    """Three hundred timers, all armed anew in one slice: a look before that is written changes nothing."""
    store = Store(tmp_path)
    index = DueIndex(store, 0)
    users = [f"u{number:03}" for number in range(300)]
    batch = store.batch()
    for number, user in enumerate(users):
        index.move(user, None, number)
    index.stage(batch)
    store.write(batch)
    index = DueIndex(store, 0)
    assert index.earliest(0) == (0, users[0])
    for number, user in enumerate(users):
        index.move(user, number, 1_000 + number)
    batch = store.batch()
    index.stage(batch)

    looked = index.earliest_of_all()
    store.write(batch)
    fired = []
    while (entry := index.earliest(10_000)) is not None:
        fired.append(entry)
        index.move(entry[1], entry[0], None)
    store.close()

    assert looked == 1_000
    assert fired == [(1_000 + number, user) for number, user in enumerate(users)]
