"""The control socket of a running node: for its owner alone, and no request breaks it."""

import asyncio
import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.agents.nodes import running

BAD_REQUESTS = {
    "no JSON": b"hello",
    "invalid UTF-8": b'"\xff"',
    "too deep": b"[" * 100_000,
    "no object": b"[1]",
    "no command": b"{}",
    "unknown command": b'{"command":"destroy"}',
    "a command that is no text": b'{"command":["user"]}',
    "arguments missing": b'{"command":"user","args":{}}',
    "arguments unknown": b'{"command":"user","args":{"x":1}}',
    "arguments of another shape": b'{"command":"user","args":[1]}',
    "an argument of another type": b'{"command":"tail","args":{"topic":"events","limit":"many"}}',
    "a user of another type": b'{"command":"user","args":{"external_id":7}}',
    "no such topic": b'{"command":"tail","args":{"topic":"gone"}}',
    "nothing to append": b'{"command":"append","args":{}}',
    "appended rows of another shape": b'{"command":"append","args":{"outputs":[1]}}',
    "appended bytes that are no base64": b'{"command":"append","args":{"outputs":[["events",0,null,"?"]]}}',
    "a topic that is ours": b'{"command":"append","args":{"outputs":[["mailbox",0,null,""]]}}',
    "a partition that does not exist": b'{"command":"append","args":{"outputs":[["events",99,null,""]]}}',
    "pause of nothing": b'{"command":"pause","args":{}}',
}


async def exchange(data: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Send lines on one connection; an answer for each."""
    reader, writer = await asyncio.open_unix_connection(data / "control.sock")
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append(json.loads(await reader.readline() or b'"hung up"'))
    writer.close()
    await writer.wait_closed()
    return answers


async def test_the_socket_is_for_its_owner_and_goes_with_the_node(tmp_path: Path) -> None:
    """Its mode is 0600, and it is gone when the node has stopped."""
    async with running(tmp_path):
        mode = (tmp_path / "control.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / "control.sock").exists()


async def test_a_client_that_stays_does_not_keep_the_node(tmp_path: Path) -> None:
    """A node stops, and leaves no task, while somebody is connected, who then reads the end."""
    async with running(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "control.sock")
        writer.write(b'{"command":"partitions"}\n')
        assert await reader.readline() == b'{"ok":2}\n'
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_a_bad_request_is_answered_and_the_connection_goes_on(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes, the answer says what is wrong, and the next request on the same line is served."""
    async with running(tmp_path) as node:
        bad, good = await exchange(tmp_path, BAD_REQUESTS[name], b'{"command":"partitions"}')
        assert set(bad) <= {"error", "kind"}
        assert bad["error"]
        assert good == {"ok": 2}
        assert node.engine.failure is not None
        assert not node.engine.failure.done()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
