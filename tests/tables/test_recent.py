"""Recent rows stay decoded within their bound, and what is handed out is what was written."""

from collections import OrderedDict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from streams.profiles.row import encode_row, new_user
from tables.partition import PartitionState
from tables.recent import RecentRows
from tables.store import Store


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40))
def test_the_bound_holds_and_the_oldest_goes_first(writes: list[tuple[str, int]]) -> None:
    """After any writes the kept rows are the newest ones that fit into the bound together."""
    recent, model = RecentRows(bytes_max=100), OrderedDict[str, int]()
    for key, size in writes:
        recent.keep(key, new_user(size), size)
        model.pop(key, None)
        model[key] = size
        while sum(model.values()) > 100:
            model.popitem(last=False)
        for each in "abcdef":
            found = recent.get(each)
            assert (found.created_ms if found else None) == model.get(each)


def test_a_kept_row_is_the_stored_row(tmp_path: Path) -> None:
    """A row changed in two slices is stored as it is kept, and a state opened afresh reads the same."""
    store = Store(tmp_path)
    state = PartitionState(store, 0)
    for step in (1, 2):
        user = state.get("ann") or new_user(5)
        user.attributes["step"] = step
        state.put("ann", user, None)
        batch = store.batch()
        state.stage(batch)
        store.write(batch)
    kept, fresh = state.get("ann"), PartitionState(store, 0).get("ann")

    assert kept is not None
    assert fresh is not None
    assert encode_row(kept) == encode_row(fresh)
    assert fresh.attributes == {"step": 2}
    store.close()
