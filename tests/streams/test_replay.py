"""The same log gives the same bytes, in any process, however it is cut, and a planted fault shows."""

import json
import os
import subprocess
import sys
from hashlib import blake2b
from pathlib import Path

import pytest

from config.workspace import DEMO_FOLDER, read_workspace
from streams.outputs import to_outputs
from streams.profiles.row import encode_row
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
