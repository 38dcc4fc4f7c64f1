"""The fold of reports: equal to a recount, wherever it is cut, and with memories that grow old by the records' time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import BadState
from streams.reports import DAY_S, HOURS_KEPT_S, SEEN_KEPT_S, fold, is_counted
from tables.reports import FAMILY, Progress, ReportsTable, read_progress, stage_progress
from tables.store import Store
from tests.oracle.reports import Row, recount
from tests.report_tables import counted

T = 1_764_000_000
CAMPAIGNS = ("c", "d")
VARIANTS = ("", "a", "b")
PEOPLE = ("ann", "bob", "cyd")
KINDS = (
    *(f"email.{name}" for name in ("Send", "Delivery", "Open", "Click", "Bounce", "SoftBounce", "MarkAsSpam")),
    *("email.Unsubscribe", "email.Abort", "email.Retry", "webhook.Send", "webhook.Failure", "webhook.Retry"),
)
NOTHING = dict.fromkeys(
    ("message_variation_name", "dispatch_id", "machine_open", "is_suspected_bot_click", "conversion_behavior")
) | {"conversion_behavior_index": None}

Note = tuple[str, Row]


def note(kind: str, *, time: int = T, campaign: str = "c", user: str = "ann", **fields: Any) -> Note:
    """A row as an export file has it, with every field that is counted."""
    return kind, {**NOTHING, "time": time, "campaign_name": campaign, "user_id": user, **fields}


@st.composite
def notes(draw: st.DrawFn) -> Note:
    """A record of any kind about a few dispatches of a few people, within a few days."""
    time = T + draw(st.integers(0, 3 * DAY_S))
    variant = draw(st.sampled_from(VARIANTS))
    fields: dict[str, Any] = {"message_variation_name": variant or None}
    kind = draw(st.sampled_from((*(f"users.messages.{each}" for each in KINDS), "Conversion", "EnrollInControl")))
    if kind == "Conversion":
        behaviour = draw(st.sampled_from(({}, {"sent_at": T}, {"sent_at": T, "revenue": "1.10", "currency": "EUR"})))
        fields |= {"conversion_behavior_index": draw(st.integers(0, 3)), "conversion_behavior": json.dumps(behaviour)}
    elif kind == "EnrollInControl":
        fields["message_variation_name"] = "control"
    else:
        fields["dispatch_id"] = f"dispatch-{draw(st.integers(0, 5))}-{variant}"
        fields["machine_open"] = draw(st.sampled_from((None, "true", "false"))) if kind.endswith("Open") else None
        fields["is_suspected_bot_click"] = draw(st.sampled_from((None, True))) if kind.endswith("Click") else None
    kind = kind if kind.startswith("users.") else f"users.campaigns.{kind}"
    user, campaign = draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(CAMPAIGNS))
    if "dispatch_id" in fields:
        fields["dispatch_id"] += campaign
    return note(kind, time=time, campaign=campaign, user=user, **fields)


def fold_all(store: Store, rows: Sequence[Note], cuts: Sequence[int] = ()) -> None:
    """Fold rows from where the store is, committing before each index of `cuts`."""
    table, progress = ReportsTable(store, 0), read_progress(store, 0)
    for at in range(progress.next_offset, len(rows)):
        if at in cuts:
            commit(store, table, progress)
        kind, row = rows[at]
        if is_counted(kind):
            progress.clock_s = fold(table, progress.clock_s, kind, json.dumps(row).encode())
        progress.next_offset = at + 1
    commit(store, table, progress)


def commit(store: Store, table: ReportsTable, progress: Progress) -> None:
    """Counters and position, whole."""
    batch = store.batch()
    table.stage(batch)
    stage_progress(batch, 0, progress)
    store.write(batch)


def stored(store: Store) -> list[tuple[bytes, bytes]]:
    """Everything that reports keep."""
    return list(store.scan(FAMILY, b"", b"\xff"))


@settings(max_examples=60)
@given(st.lists(notes(), max_size=40), st.sets(st.integers(0, 40)))
def test_equal_to_a_recount(tmp_path_factory: pytest.TempPathFactory, rows: list[Note], cuts: set[int]) -> None:
    """Whatever happens in order of time, counters are those of a recount, and cuts change not a byte of the state."""
    rows = sorted(rows, key=lambda each: each[1]["time"])
    folder = tmp_path_factory.mktemp("reports")
    whole, cut = Store(folder / "whole"), Store(folder / "cut")
    fold_all(whole, rows)
    fold_all(cut, rows, sorted(cuts))

    assert counted(whole, [0]) == recount(rows)
    assert stored(whole) == stored(cut)
    whole.close()
    cut.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path)


def total(store: Store, name: str, unit: str = "all") -> int:
    """One number of campaign `c`, over the buckets of a unit."""
    return sum(each.get(name, 0) for place, each in counted(store, [0]).items() if place[2] == unit)


@pytest.mark.parametrize(("after_s", "unique"), [(SEEN_KEPT_S - 1, 1), (SEEN_KEPT_S, 2)])
@pytest.mark.parametrize("swept", [False, True])
def test_a_first_open_is_remembered_for_so_long(store: Store, after_s: int, unique: int, swept: bool) -> None:
    """A later open is unique again exactly when 90 days have passed, whether or not old rows were swept meanwhile."""
    rows = [note("users.messages.email.Open", time=T, dispatch_id="x")]
    rows.append(note("users.messages.email.Retry", time=T + after_s, dispatch_id="y"))
    fold_all(store, rows)
    if swept:
        sweep(store)
    fold_all(store, [*rows, note("users.messages.email.Open", time=T + after_s, dispatch_id="x")])

    assert (total(store, "opens"), total(store, "unique_opens")) == (2, unique)


def sweep(store: Store) -> int:
    """Drop every row that is old by the store's own clock; returns how many."""
    table, batch, count, cursor = ReportsTable(store, 0), store.batch(), 0, b""
    while True:
        swept = table.old(read_progress(store, 0).clock_s, cursor, 2)
        for key in swept.keys:
            batch.delete(FAMILY, key)
        count += len(swept.keys)
        if swept.cursor is None:
            store.write(batch)
            return count
        cursor = swept.cursor


def test_hours_grow_old_and_days_stay(store: Store) -> None:
    """Counters by the hour are dropped after 35 days and not begun again; by the day and in all nothing is lost."""
    sends = [note("users.messages.email.Send", time=T, dispatch_id="x")]
    fold_all(store, [*sends, note("users.messages.email.Send", time=T + HOURS_KEPT_S + 7_200, user="bob")])
    assert [total(store, "sent", unit) for unit in ("all", "day", "hour")] == [2, 2, 2]
    assert sweep(store) == 2  # the hour, and that ann had received
    fold_all(store, [*sends, *sends, note("users.messages.email.Send", time=T, user="cyd")])

    assert [total(store, "sent", unit) for unit in ("all", "day", "hour")] == [3, 3, 1]


def test_only_campaigns_count(store: Store) -> None:
    """Behaviours are passed over by their type, and a record of no campaign says nothing; bad bytes stop the fold."""
    assert not is_counted("users.behaviors.Purchase")
    fold_all(store, [note("users.messages.email.Send", campaign="")])
    assert stored(store) == []
    with pytest.raises(BadState, match="does not decode"):
        fold(ReportsTable(store, 0), 0, "users.messages.email.Send", b"{}")


@pytest.mark.parametrize("text", ["no json", '{"revenue": "much"}', '{"revenue": "NaN"}', '{"revenue": 7}'])
def test_strange_behaviours(store: Store, text: str) -> None:
    """A conversion whose details cannot be read is counted without them."""
    fold_all(store, [note("users.campaigns.Conversion", conversion_behavior_index=1, conversion_behavior=text)])

    assert counted(store, [0])["c", "", "all", 0] == {"conversions_b": 1, "conversions_by_send_b": 1}
