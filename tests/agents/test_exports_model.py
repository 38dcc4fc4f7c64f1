"""Every exported row, whole, is one that an independent model of the input says, and none is missing or twice."""

import json
import mailbox
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import fastavro
import pytest

from config.workspace import DEMO_FOLDER
from tests.oracle.cdnow import cdnow_path, read_rows, read_workspace
from tests.oracle.exports import Model, Rows, expected_rows, partition_of

ROOT = Path(__file__).parents[2]
APP = "proof"
PARTITIONS = 2
ROWS_MAX = 15_000
CUSTOMERS = 700
# Where each process dies; the next goes on with what it left.
KILLS = (
    "write:6:before",
    "apply:2500:after",
    "append:2:after",
    "append:2:before",
    "link:1:after",
    "link:2:before",
    "link:2:after",
)


def made_lines() -> list[bytes]:
    """Purchases of CDNOW, one file's worth in bulk, events, sessions, repeats and refusals, in order of time."""
    rows = read_rows(cdnow_path())
    customers = set(list(dict.fromkeys(row[0] for row in rows))[:CUSTOMERS])
    found: list[tuple[str, dict[str, Any]]] = []
    for number, (who, date, cds, dollars) in enumerate(rows):
        if who not in customers:
            continue
        time = f"{date[:4]}-{date[4:6]}-{date[6:]}T00:00:00Z"
        head = {"external_id": who, "time": time}
        body = {**head, "type": "purchase", "product_id": "cds", "currency": "USD", "price": float(dollars)}
        found.append((time, {**body, "id": f"n{number}", "properties": {"number_of_cds": int(cds)}}))
        if number % 3 == 0:
            properties = {"b": [1, None, {"é": "\u2028"}], "a": 1.5}
            found.append((time, {**head, "type": "event", "name": "view", "properties": properties}))
            found.append((time, {**head, "type": "session_start", "app_id": "web", "session_id": f"s{number}"}))
            found.append((time, {**head, "type": "session_end"}))
        if number % 7 == 0:
            found.append((time, {**body, "id": f"n{number}"}))  # applied already
            found.append(("1998-07-02T00:00:00Z", {**body, "time": "1998-07-02T00:00:00Z", "id": f"n{number}"}))
            found.append((time, {**head, "type": "party"}))
            found.append((time, {**head, "type": "purchase", "price": "much"}))
    return [*_profiles(sorted(customers)), *_in_order(found), b"no json", *_in_order(_bulk())]


def _profiles(customers: list[str]) -> list[bytes]:
    """Addresses; some users have none, some do not want mail."""
    lines = []
    for number, who in enumerate(customers):
        value = {"type": "attributes", "external_id": who, "email": f"{who}@example.com"}
        if number % 10 == 1:
            value["email_subscribe"] = "unsubscribed"
        if number % 10 != 2:
            lines.append(json.dumps(value).encode())
    return lines


def _bulk() -> list[tuple[str, dict[str, Any]]]:
    """A little more than one file of purchases in one partition: a hundred units each."""
    names = (name for at in count() if not partition_of(name := f"bulk{at}", PARTITIONS))
    time = "1998-07-03T00:00:00Z"
    body = {"type": "purchase", "time": time, "product_id": "p", "currency": "EUR", "price": 0.1, "quantity": 100}
    return [(time, {**body, "external_id": next(names)}) for _ in range(ROWS_MAX // 100 + 5)]


def _in_order(found: list[tuple[str, dict[str, Any]]]) -> list[bytes]:
    return [json.dumps(value, ensure_ascii=False).encode() for _, value in sorted(found, key=lambda pair: pair[0])]


def run(data: Path, *command: str) -> int:
    """Run a command of ours on the folder; its return code, negative for a signal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    settings = {"DATA": data, "APP": APP, "PARTITIONS": PARTITIONS, "CLOCK": "stream", "HTTP": ""}
    settings["WORKSPACE"] = DEMO_FOLDER
    environment |= {f"HEADRACE_{name}": str(value) for name, value in settings.items()}
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()[-4_000:]
    return ended.returncode


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """The folder of a replay that was killed many times, and the model of its input."""
    data = tmp_path_factory.mktemp("replayed")
    lines = made_lines()
    (data / "lines").write_bytes(b"\n".join(lines))
    assert run(data, "app.py", "send", str(data / "lines"), "--end") == 0
    for kill in KILLS:
        assert run(data, "-m", "tests.agents.run_once", kill) == -signal.SIGKILL, f"{kill} was never reached"
    assert run(data, "-m", "tests.agents.run_once") == 0
    return data, expected_rows(lines, APP, PARTITIONS, read_workspace(DEMO_FOLDER))


def exported(data: Path) -> Rows:
    """Every row of every file, by type and id; each file is whole, of one type, and named after its first row."""
    found: Rows = {}
    for path in sorted((data / "exports").rglob("*")):
        if path.is_dir():
            continue
        event_type = path.parts[-3].removeprefix("event_type=")
        with path.open("rb") as file:
            reader = fastavro.reader(file)
            schema, rows = reader.writer_schema, [row for row in reader if isinstance(row, dict)]
        assert isinstance(schema, dict)
        assert schema["name"] == f"dataexport.S3.inner.{event_type}"
        assert 0 < len(rows) <= ROWS_MAX
        hour = datetime.fromtimestamp(rows[0]["time"], UTC).strftime("%Y-%m-%d-%H")
        assert path.parts[-2] == f"date={hour}"
        for row in rows:
            key = (event_type, row["id"])
            assert key not in found, f"{path}: {row['id']} is in two places"
            found[key] = {name: value for name, value in row.items() if value is not None}
    return found


def test_exported_rows_equal_the_model(replayed: tuple[Path, Model]) -> None:
    """The rows of all files are exactly those that the model derives from the input, field by field."""
    data, model = replayed
    found = exported(data)

    assert Counter(kind for kind, _ in found) == Counter(kind for kind, _ in model.rows)
    assert {key for key in model.rows if found.get(key) != model.rows[key]} == set()
    assert found.keys() == model.rows.keys()
    assert len({row_id for _, row_id in found}) == len(found)


def test_the_replay_is_worth_exporting(replayed: tuple[Path, Model]) -> None:
    """The input reaches every type that can occur, a file that is full, and thousands of rows."""
    data, model = replayed
    per_type = Counter(kind for kind, _ in model.rows)
    behaviours = {"CustomEvent", "Purchase", "app.FirstSession", "app.SessionStart", "app.SessionEnd"}
    messages = {"email.Send", "email.Abort", "webhook.Send"}
    full = f"+0+{'[0-9]' * 20}.avro"

    assert set(per_type) == {f"users.behaviors.{name}" for name in behaviours} | {
        f"users.messages.{name}" for name in messages
    }
    assert min(per_type.values()) > 20
    assert per_type["users.behaviors.Purchase"] > ROWS_MAX + 2_000
    assert len(list((data / "exports").glob(f"event_type=users.behaviors.Purchase/*/*{full}"))) > 1


def test_the_outbox_holds_each_sent_dispatch_once(replayed: tuple[Path, Model]) -> None:
    """Mails and webhooks in the outbox are, one each, the dispatches that the model says were sent."""
    data, model = replayed
    mails = mailbox.mbox(data / "outbox" / "email.mbox", create=False)
    mailed = Counter((mail["X-Headrace-Dispatch"], mail["To"]) for mail in mails)
    hooks = (data / "outbox" / "webhook.jsonl").read_bytes().splitlines()
    called = Counter(json.loads(line)["dispatch_id"] for line in hooks)
    sent = {kind: [row for (name, _), row in model.rows.items() if name.endswith(kind)] for kind in ("Send",)}

    assert mailed == Counter(
        (row["dispatch_id"], row["email_address"]) for row in sent["Send"] if "email_address" in row
    )
    assert called == Counter(row["dispatch_id"] for row in sent["Send"] if "email_address" not in row)
    mails.close()


def test_refused_lines_are_dead_letters(replayed: tuple[Path, Model]) -> None:
    """What the model refuses is the number of dead letters, each once in spite of the kills."""
    data, model = replayed
    from streams import topics
    from tables.log import Log
    from tables.store import Store

    store = Store(data / "db")
    ends = [Log(store).end(topics.DEAD_LETTERS.name, partition) for partition in range(PARTITIONS)]
    store.close()

    assert sum(ends) == model.refused > 100
