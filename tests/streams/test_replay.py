"""The same log gives the same bytes, in any process, however it is cut, and a planted fault shows."""

import json
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.workspace import DEMO_FOLDER, read_workspace
from streams.campaigns.enter import started
from streams.campaigns.trigger import Campaign
from streams.effects import Refused
from streams.outputs import to_outputs
from streams.profiles.row import encode_row
from streams.times import DAY_MS
from tables.partition import PartitionState
from tables.store import Store
from tests.driver import Driver

NOW_MS = 1_764_000_000_000
ROOT = Path(__file__).parents[2]


def run_log(folder: Path | None, cut: int, *, restart_at: int = -1) -> str:
    """Fold a fixed log, committing every `cut` records, reopening the store once; the digest of rows and outputs."""
    driver = Driver(read_workspace(DEMO_FOLDER), clock="stream")
    driver.now_ms = NOW_MS
    for at in range(300):
        user = f"u{at * 7 % 40}"
        day = f"2020-{1 + at // 28 % 12:02d}-{1 + at % 28:02d}T00:00:00Z"
        body = {"type": "purchase", "external_id": user, "product_id": "cds", "currency": "USD", "price": at % 90}
        driver.send({**body, "id": str(at), "time": day, "properties": {"number_of_cds": at % 5}})
    digest = blake2b()
    for output in to_outputs(driver.effects, 0):
        digest.update(repr(output).encode())
    rows = driver.rows[0].stored
    assert len(rows) == 40
    if folder is not None:
        rows = stored_rows(driver, folder, cut, restart_at, digest_of=rows)
    for user in sorted(rows):
        digest.update(user.encode() + rows[user])
    return digest.hexdigest()


def stored_rows(
    driver: Driver, folder: Path, cut: int, restart_at: int, *, digest_of: dict[str, bytes]
) -> dict[str, bytes]:
    """The rows after folding the driver's mailbox over a real store, cut into slices."""
    from streams.fold import Fold
    from tests.driver import fold_record

    store = Store(folder)
    state = PartitionState(store, 0)
    fold = Fold(state, state.position, "stream", driver.workspaces.__getitem__)
    for number, record in enumerate(driver.mailboxes[0]):
        fold_record(fold, record)
        if number % cut == cut - 1 or number == len(driver.mailboxes[0]) - 1:
            batch = store.batch()
            state.stage(batch)
            store.write(batch)
            if number >= restart_at >= 0:
                restart_at = -1
                store.close()
                store = Store(folder)
                state = PartitionState(store, 0)
                fold = Fold(state, state.position, "stream", driver.workspaces.__getitem__)
    rows = {user: value for user in digest_of if (value := store.get("users", b"\0\0" + user.encode())) is not None}
    store.close()
    return rows


def unordered_start(*arguments: Any) -> list[Campaign]:
    """The rule of which campaigns start, spoilt: they come in the order of a set of their names."""
    found = {campaign.name: campaign for campaign in started(*arguments)}
    return [found[name] for name in {*found}]


def digest_of_many_campaigns() -> str:
    """The digest of rows and outputs when one event starts many campaigns and segments at once."""
    files: dict[str, Any] = {}
    for at in range(12):
        trigger = {"event": {"name": "like"}}
        campaign = {"name": f"c{at}", "trigger": trigger, "channel": "log", "message": {"text": "hi"}}
        files[f"campaigns/c{at}.yaml"] = {**campaign, "delay": f"{at % 2}s"}
        files[f"segments/s{at}.yaml"] = {"name": f"s{at}", "filter": {"event": {"name": "like", "within": "2s"}}}
    driver = Driver(files)
    for user in ("ann", "bob"):
        driver.send({"type": "event", "external_id": user, "name": "like"})
    driver.advance(5_000)
    assert (len(driver.sends), len(driver.changes)) == (24, 48)
    stored = [driver.rows[0].stored, to_outputs(driver.effects, 0)]
    return blake2b(repr(stored).encode()).hexdigest()


def many_in_process(seed: str, *, spoilt: bool) -> str:
    """The digest of many campaigns in a process with this hash seed, with the planted fault or without."""
    plant = "from streams import users; users.started = test_replay.unordered_start; " if spoilt else ""
    script = f"from tests.streams import test_replay; {plant}print(test_replay.digest_of_many_campaigns())"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_the_order_of_a_set_shows() -> None:
    """With other hash seeds the bytes are the same, and differ once one rule goes through a set."""
    assert many_in_process("1", spoilt=False) == many_in_process("2", spoilt=False) == digest_of_many_campaigns()
    assert many_in_process("1", spoilt=True) != many_in_process("2", spoilt=True)


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 30)), max_size=4))
def test_any_repeated_intake_changes_nothing(repeats: list[tuple[int, int]]) -> None:
    """Any stretches of what was taken in, appended again in any order, change no row, effect or total."""
    driver = Driver(read_workspace(DEMO_FOLDER), clock="stream")
    driver.now_ms = NOW_MS
    for at in range(15):
        body = {"type": "purchase", "external_id": f"u{at % 4}", "product_id": "cds", "currency": "USD", "price": 90}
        driver.send({"purchases": [{**body, "time": f"2020-01-{1 + at:02d}"}] * 2})
    mailbox = list(driver.mailboxes[0])
    position = driver.folds[0].position
    before = repr((driver.rows[0].stored, driver.effects, position.totals, position.causes, position.clock_ms))
    for first, length in repeats:
        for record in mailbox[1:][first : first + length]:
            driver._append(0, record.key, record.value)

    after = repr((driver.rows[0].stored, driver.effects, position.totals, position.causes, position.clock_ms))
    assert after == before


def like(driver: Driver, event_id: str) -> int:
    """Send a like under an id; how many likes count by then."""
    driver.send({"type": "event", "external_id": "mel", "name": "like", "id": event_id})
    return driver.user("mel").events["like"].count


@pytest.mark.parametrize(("after_ms", "count"), [(0, 1), (DAY_MS, 1), (DAY_MS + 1_000, 2)])
def test_event_ids_are_remembered_for_a_day(after_ms: int, count: int) -> None:
    """An id counts once within 24 h of its first use, which a repeat does not prolong, and then again."""
    driver = Driver({})
    assert like(driver, "one") == 1
    driver.advance(after_ms // 2)
    assert like(driver, "one") == 1
    driver.advance(after_ms - after_ms // 2)

    assert like(driver, "one") == count


def test_at_most_1000_event_ids_are_remembered() -> None:
    """The newest 1,000 ids are known, one more lets go of the oldest, and the row does not grow."""
    driver = Driver({})
    for at in range(1_000):
        like(driver, str(at))
    full = len(driver.user("mel").seen)
    assert like(driver, "0") == like(driver, "999") == 1_000
    assert like(driver, "new") == 1_001

    assert like(driver, "1") == 1_001
    assert like(driver, "0") == 1_002
    assert len(driver.user("mel").seen) == full


def test_a_refused_event_leaves_its_id_free() -> None:
    """An event that the row had no room for is not remembered as applied, so it can come again."""
    driver = Driver({})
    for at in range(1_000):
        driver.send({"type": "event", "external_id": "mel", "name": f"n{at}"})
    for _ in range(2):
        effects = driver.send({"type": "event", "external_id": "mel", "name": "like", "id": "one"})
        assert [effect.reason for effect in effects if isinstance(effect, Refused)] == ["row_limit"]


def digest_in_process(seed: str, cut: int, folder: Path) -> str:
    """The digest as another process with another hash seed computes it."""
    imports = "from pathlib import Path; from tests.streams.test_replay import run_log"
    script = f"{imports}; print(run_log(Path({str(folder)!r}), {cut}, restart_at=100))"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def test_same_log_same_bytes(tmp_path: Path) -> None:
    """Two processes with other hash seeds, slice sizes and a restart give the same rows and outputs to the byte."""
    plain = run_log(None, 1)
    assert plain == digest_in_process("1", 1, tmp_path / "one")
    assert plain == digest_in_process("2", 37, tmp_path / "two")


@pytest.mark.parametrize("fault", ["clock", "random"])
def test_a_planted_fault_shows(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that reads a clock or a random source makes two runs of the same log differ."""
    import random
    import time

    from streams import ids

    source = time.perf_counter_ns if fault == "clock" else random.random
    plain = run_log(None, 1)
    monkeypatch.setattr(ids, "user_id", lambda external_id: str(source()))
    monkeypatch.setattr("streams.currents.user_id", lambda external_id: str(source()))
    assert plain != run_log(None, 1)


def test_a_repeated_intake_changes_nothing() -> None:
    """Letters with causes that were applied are dropped, whatever part of the log comes again."""
    driver = Driver(read_workspace(DEMO_FOLDER), clock="stream")
    driver.now_ms = NOW_MS
    for at in range(20):
        driver.send({"type": "event", "external_id": "mel", "name": "like", "time": f"2020-01-{1 + at:02d}"})
    before = encode_row(driver.user("mel"))
    for record in driver.mailboxes[0][10:]:
        driver._append(0, record.key, record.value)
    assert before == encode_row(driver.user("mel"))
    assert json.dumps(driver.user("mel").events["like"].count) == "20"
