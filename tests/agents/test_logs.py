"""What a process logs: one JSON object a line where nobody watches a terminal, and nothing of any user."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from config.logging import set_up_logging
from tests.agents.nodes import environment, free_port, until, write_workspace

ROOT = Path(__file__).parents[2]
KEY = "a-test-key"
MARK = "zqxv"
"""Stands in everything that is a user's, and in nothing else."""

PERSON = {
    "external_id": f"{MARK}-8841",
    "email": f"{MARK}@secret.example",
    "first_name": f"{MARK}phone",
    "phone": f"+1555{MARK}",
    "diagnosis": f"{MARK}ution",
}
FILES: dict[str, Any] = {
    f"campaigns/{channel}.yaml": {
        "name": channel,
        "trigger": {"event": {"name": "likes"}},
        "channel": channel,
        "message": message,
        "re_eligible_after": "0s",
    }
    for channel, message in {
        "log": {"text": "{{ ${first_name} }}"},
        "email": {"to": "{{ ${email_address} }}", "subject": "{{ ${first_name} }}", "text": "{{ ${diagnosis} }}"},
        "webhook": {"url": "http://127.0.0.1:9/{{ ${email_address} }}", "body": "{{ ${first_name} }}"},
    }.items()
}


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], str, Path]]:
    """`app.py run` on the embedded log with providers that refuse, what it says in a file."""
    http, said = f"127.0.0.1:{free_port()}", folder / "said"
    own = {
        "http": http,
        "api_key": KEY,
        "workspace": write_workspace(folder / "workspace", FILES),
        "smtp": "smtp://127.0.0.1:9",
        "http_allow": "127.0.0.0/8",
        "canary_s": 0.2,
    }
    rest = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    with said.open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            [sys.executable, "app.py", "run"],
            cwd=ROOT,
            env={**rest, **environment(folder / "data", **own)},
            stdout=log,
            stderr=log,
        )
    try:
        await until(lambda: process.poll() is not None or b"takes events" in said.read_bytes(), seconds=40)
        yield process, f"http://{http}", said
    finally:
        process.kill()
        process.wait()


async def test_nothing_of_a_user_is_logged(tmp_path: Path) -> None:
    """A user's flow, with refused records and failing providers: every line is JSON, and none holds what is theirs."""
    async with running(tmp_path) as (process, url, said), aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {KEY}"}
        name = PERSON["external_id"]
        event = {"external_id": name, "name": "likes", "properties": PERSON}
        bodies: list[Any] = [
            {"attributes": [PERSON], "events": [event]},
            {"attributes": [{**PERSON, "email": [MARK, 1]}], "events": [{**event, "time": MARK}]},
            {"purchases": [{"external_id": name, "product_id": MARK, "currency": MARK, "price": MARK}]},
        ]
        for body in bodies:
            async with session.post(f"{url}/users/track", json=body, headers=headers) as answer:
                await answer.read()
        async with session.post(f"{url}/users/track", data=f'{{"{MARK}'.encode(), headers=headers) as answer:
            await answer.read()
        report = await retrying(session, url)
        assert MARK not in json.dumps(report)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)
    text = said.read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"event", "level", "timestamp"} <= set(lines[0])
    assert MARK not in text


async def retrying(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """What the status page knows once both providers have refused, so that their sends are to be tried again."""
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{url}/status.json") as answer:
                report: dict[str, Any] = await answer.json()
            if sum(each["retried"] > 0 for each in report.get("channels", ())) == 2:
                return report
            await asyncio.sleep(0.2)


def test_libraries_log_as_we_do(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a library says from WARNING on is a JSON line with its name; less than that is not said."""
    monkeypatch.setattr(logging.root, "handlers", [])
    set_up_logging()
    try:
        logging.getLogger("aiokafka").warning("topic %s is away", "events")
        logging.getLogger("aiokafka").info("hello")
        structlog.get_logger("headrace").warning("ours", email="ann@secret.example", count=1)
    finally:
        structlog.reset_defaults()
    theirs, ours = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("topic events is away", "warning", "aiokafka")
    assert (ours["event"], ours["email"], ours["count"]) == ("ours", "[redacted]", 1)
