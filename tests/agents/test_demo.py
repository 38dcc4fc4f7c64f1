"""The demo as a user runs it: whole, killed, and beside an independent model."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest

from config.workspace import DEMO_FOLDER
from tests.oracle.cdnow import cdnow_path, expected, read_purchases

ROOT = Path(__file__).parents[2]
VOLATILE = ("seconds", "events_per_s")


def start_demo(data: Path, seed: str = "0") -> subprocess.Popen[bytes]:
    """Start `demo --once` on a data folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment |= {"HEADRACE_DATA": str(data), "PYTHONHASHSEED": seed}
    command = [sys.executable, "app.py", "demo", "--once"]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The demo's last line, without what depends on speed and on where files were cut."""
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()[-2000:]
    line: dict[str, Any] = json.loads(out.splitlines()[-1])
    for name in VOLATILE:
        del line[name]
    del line["export"]["files"]
    return line


def export_rows(data: Path) -> list[dict[str, Any]]:
    """Every row of every export file, read by fastavro; no file is empty or too large."""
    found = []
    for path in sorted((data / "exports").glob("event_type=*/date=*/*.avro")):
        with path.open("rb") as file:
            rows = list(fastavro.reader(file))
        assert 0 < len(rows) <= 15_000
        found += [{**row, "type": path.parts[-3]} for row in rows if isinstance(row, dict)]
    return found


@pytest.mark.timeout(600)
def test_the_demo_equals_the_model_even_when_killed(tmp_path: Path) -> None:
    """The line equals an independent brute force, also after kill -9 at random moments, and each export id is once."""
    wanted = expected(DEMO_FOLDER)
    dice = random.Random(7)
    for _ in range(5):
        process = start_demo(tmp_path)
        time.sleep(dice.uniform(1.0, 4.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    line = finish(start_demo(tmp_path))
    assert wanted == line
    rows = export_rows(tmp_path)
    assert len(rows) == len({row["id"] for row in rows}) == line["export"]["rows"]
    bought = [row for row in rows if row["type"] == "event_type=users.behaviors.Purchase"]
    in_files = Counter((row["external_user_id"], row["time"], round(row["price"], 2)) for row in bought)
    in_data = Counter((one.customer, one.at, float(one.price)) for one in read_purchases(cdnow_path()))
    assert in_data == in_files
    mailed = {row["dispatch_id"] for row in rows if row["type"] == "event_type=users.messages.email.Send"}
    called = {row["dispatch_id"] for row in rows if row["type"] == "event_type=users.messages.webhook.Send"}
    assert len(mailed) + len(called) == line["delivered"]
    mails = (tmp_path / "outbox" / "email.mbox").read_bytes().count(b"\nX-Headrace-Dispatch: ")
    hooks = len((tmp_path / "outbox" / "webhook.jsonl").read_bytes().splitlines())
    assert mails + hooks == line["delivered"]
