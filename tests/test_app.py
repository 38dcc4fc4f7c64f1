"""The command line as operators use it: each command in a process of its own, on a running node and on a folder."""

import ast
import asyncio
import json
import os
import re
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from agents.node import Node
from agents.web.arguments import arguments_parser
from config.clock import SystemClock
from streams.events import JSONValue
from tests.agents.nodes import environment, event, process, running, write_workspace

ROOT = Path(__file__).parents[1]
SEGMENT = {"name": "fans", "filter": {"all": [{"event": {"name": "like"}}, {"not": {"purchases": {}}}]}}
CAMPAIGN = {"name": "hi", "trigger": {"segment_entered": "fans"}, "channel": "log", "message": {"text": "hi"}}
FILES = {"segments/fans.yaml": SEGMENT, "campaigns/hi.yaml": CAMPAIGN}


async def command(data: Path, *words: str, stdin: bytes = b"", **settings: object) -> tuple[int, str, str]:
    """Run one command on a data folder: its exit code, stdout and stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    variables = {**clean, **environment(data, **settings)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "app.py", *words, cwd=ROOT, env=variables, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, errors = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def answer(data: Path, *words: str, stdin: bytes = b"") -> JSONValue:
    """The JSON document of a command that does what it says."""
    code, out, errors = await command(data, *words, "--json", stdin=stdin)
    assert code == 0, errors
    return json.loads(out)


def commands(parser: ArgumentParser) -> Iterator[str]:
    """Every command that the parser knows, by its words."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for below in action.choices.values():
                if below.get_default("command") not in ("dead-letters", "config", "definitions", "keys"):
                    yield below.get_default("command")
                yield from commands(below)


COMMANDS = sorted(commands(arguments_parser("")))


def test_every_command_runs_something_and_is_documented() -> None:
    """What the parser knows, app.py carries out, and README.md tells of, and nothing more."""
    tree = ast.parse((ROOT / "app.py").read_text("utf-8"))
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    [table] = [node.value for node in assigned if ast.unparse(node.target) == "RUNS"]
    assert isinstance(table, ast.Dict)
    runs = [ast.literal_eval(key) for key in table.keys if key is not None]
    readme = (ROOT / "README.md").read_text("utf-8")
    told = "\n".join(re.findall(r"(?m)^\| `.*$", readme))

    assert sorted(runs) == COMMANDS
    assert [name for name in COMMANDS if not all(re.search(rf"\b{word}\b", told) for word in name.split())] == []


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Node]:
    """A running node with a user who likes something, a send and a dead letter of each kind."""
    workspace = write_workspace(tmp_path / "workspace", FILES)
    async with running(tmp_path / "data", SystemClock(), workspace=workspace) as found:
        await process(found, event("ann"), b'{"type":"event","external_id":"bob","name":7}', b"hello")
        yield found


READS = {
    "user": ("user", "ann"),
    "explain": ("explain", "ann", "fans"),
    "segments": ("segments",),
    "sends": ("sends",),
    "sends list": ("sends", "list"),
    "lag": ("lag",),
    "tail": ("tail", "events"),
    "dead-letters list": ("dead-letters", "list"),
    "dead-letters replay": ("dead-letters", "replay"),
    "pause": ("pause", "hi"),
    "resume": ("resume", "--all"),
    "config check": ("config", "check"),
    "definitions schema": ("definitions", "schema"),
    "definitions status": ("definitions", "status"),
}


async def test_each_command_answers_people_and_machines(tmp_path: Path) -> None:
    """Every command prints one JSON document with --json, lines for people without, and nothing on stderr."""
    async with serving(tmp_path) as node:
        data = node.settings.data
        for name, words in READS.items():
            (code, out, errors), found = await asyncio.gather(command(data, *words), answer(data, *words))
            assert (code, errors) == (0, ""), name
            assert out.strip(), name
            assert name == "definitions schema" or "{" not in out.replace('{"type', ""), out
            assert found is not None, name


async def test_what_operators_do(tmp_path: Path) -> None:
    """Send, look, replay, pause, apply: each command's document says what it did to the running node."""
    async with serving(tmp_path) as node:
        data, workspace = node.settings.data, str(tmp_path / "workspace")
        assert await answer(data, "send", "-", stdin=json.dumps(event("cy")).encode() + b"\n\n") == {"records": 2}
        await node.quiesce()
        assert (await answer(data, "user", "cy"))["events"]["like"]["count"] == 1
        letters = await answer(data, "dead-letters", "list")
        assert sorted(letter["reason"] for letter in letters) == ["empty", "not_json", "wrong_type"]
        assert [row["reason"] for row in await answer(data, "dead-letters", "list", "--limit", "1")] == ["empty"]
        assert [row["value"] for row in await answer(data, "dead-letters", "list", "--reason", "not_json")] == ["hello"]
        replayed = await answer(data, "dead-letters", "replay", "--reason", "wrong_type")
        assert replayed == {
            "letters": 1,
            "records": 1,
            "replayed_before": 0,
            "gone": 0,
            "not_held": [],
            "stopped": False,
        }
        assert await answer(data, "pause", "hi") == {"campaign": "hi", "paused": True}
        assert await answer(data, "resume", "--all") == {"campaign": "*", "paused": False}
        assert not (await answer(data, "definitions", "apply", workspace))["applied"]
        assert "in force already" in (await command(data, "definitions", "apply", workspace))[1]
        assert [row["state"] for row in await answer(data, "sends", "list", "--state", "sent")] == ["sent", "sent"]
        assert await answer(data, "sends", "list", "--held") == []


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such user": (("user", "nobody"), "no user 'nobody'"),
    "no such segment": (("explain", "ann", "gone"), "segments are fans"),
    "no such topic": (("tail", "gone"), "topics are events"),
    "no such campaign": (("pause", "gone"), "campaigns are hi"),
    "pause of nothing": (("pause",), "name one, or give --all"),
    "pause of one and all": (("pause", "hi", "--all"), "name one, or give --all"),
    "no such state": (("sends", "list", "--state", "lost"), "states are"),
    "release of nothing": (("sends", "release"), "name one, or give --all"),
    "no such workspace": (("definitions", "check", "gone"), "gone: no such folder"),
    "limit of 0": (("tail", "events", "--limit", "0"), "give 1 or more"),
    "limit that is no number": (("dead-letters", "list", "--limit", "many"), "'many' is not a number"),
}


async def test_whoever_asks_wrongly_is_told_the_fix(tmp_path: Path) -> None:
    """A wrong question ends with 2 and words that name the fix, also as one JSON document."""
    async with serving(tmp_path) as node:
        for name, (words, text) in WRONG.items():
            code, out, errors = await command(node.settings.data, *words)
            assert (code, out) == (2, ""), name
            assert text in errors, name
            assert "Traceback" not in errors, name
        code, out, errors = await command(node.settings.data, "user", "nobody", "--json")
        assert (code, json.loads(out)) == (2, {"error": errors.strip().removeprefix("headrace: ")})


async def test_a_folder_that_nobody_uses_answers_itself(tmp_path: Path) -> None:
    """Without a process, commands open the folder; one that is none is not made by asking, only by sending."""
    data = tmp_path / "data"
    code, _, errors = await command(data, "segments")
    assert (code, data.exists()) == (2, False)
    assert "nothing runs there" in errors
    workspace = write_workspace(tmp_path / "workspace", FILES)
    assert (await answer(data, "definitions", "apply", str(workspace)))["applied"]
    line = json.dumps(event("ann")).encode()
    assert await answer(data, "send", "-", stdin=line) == {"records": 1}
    [row] = await answer(data, "tail", "events")
    assert row["value"] == line.decode()
    assert await answer(data, "sends", "release", "--all") == 0
    code, _, errors = await command(data, "sends", "release", "no-such-dispatch")
    assert (code, "no-such-dispatch" in errors) == (2, True)


async def test_a_failure_is_1_and_settings_are_2(tmp_path: Path) -> None:
    """What the machine refuses ends with 1, a setting that cannot be used with 2, each in one line."""
    code, _, errors = await command(tmp_path, "send", "gone.ndjson")
    assert (code, errors) == (1, "headrace: gone.ndjson: No such file or directory\n")
    code, out, errors = await command(tmp_path, "config", "check", api_key="secret")
    assert (code, "***" in out, "secret" in out + errors) == (0, True, False)
    code, _, errors = await command(tmp_path, "config", "check", colour="red")
    assert (code, "HEADRACE_COLOUR" in errors) == (2, True)


async def test_run_says_when_it_is_ready(tmp_path: Path) -> None:
    """`run --json` prints one document once it takes events, and ends with 0 when it is asked to stop."""
    variables = {**os.environ, **environment(tmp_path)}
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "app.py", "run", "--json")
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, env=variables, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline()) == {"ready": True, "http": "", "data": str(tmp_path)}
    assert (await answer(tmp_path, "segments")) == {}
    process.terminate()
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"")


async def test_every_help_reads_well() -> None:
    """Every command has a sentence of help, and every argument a word on what it is."""
    parser = arguments_parser("x")
    todo = [parser]
    while todo:
        found = todo.pop()
        assert found.description, found.prog
        for action in found._actions:
            assert isinstance(action, _SubParsersAction) or action.help, (found.prog, action.dest)
            todo += action.choices.values() if isinstance(action, _SubParsersAction) else []
