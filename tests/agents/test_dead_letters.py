"""Dead letters through a whole node: listed, and replayed once, only what was refused of them."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from agents.node import Node
from agents.web import dead_letters
from agents.web.replay import PORTION_LETTERS, replay_all
from config.clock import ManualClock
from streams.records import Output
from streams.times import HOUR_MS, format_time
from tables.store import Batch
from tests.agents.nodes import NOW_MS, PARTITIONS, ask, event, process, records, running

LATER = format_time(NOW_MS + 25 * HOUR_MS)
EARLY = event("ann", "early", time=LATER)


async def replay(node: Node, **args: object) -> dict[str, int]:
    """Replay every partition over the control socket; the sums."""
    answers = [await ask(node, "replay", partition=partition, **args) for partition in range(PARTITIONS)]
    return {name: sum(answer[name] for answer in answers) for name in answers[0] if name not in ("next", "end")}


async def test_a_replay_applies_what_was_refused_and_nothing_else(tmp_path: Path) -> None:
    """Once its cause is gone, a refused item is applied, and the good items of its record stay applied once."""
    body = json.dumps({"events": [event("ann"), EARLY, event("bob", "early", time=LATER), event("bob")]}).encode()
    clock = ManualClock(NOW_MS)
    async with running(tmp_path, clock) as node:
        await process(node, body)
        clock.advance(2 * HOUR_MS)
        assert await replay(node) == {"letters": 2, "records": 1, "replayed_before": 0, "gone": 0}
        await node.quiesce()
        users = [await ask(node, "user", external_id=name) for name in ("ann", "bob")]
        [(home, first), (again_home, again)] = await records(node, "events")

    for user in users:
        assert {name: found["count"] for name, found in user["events"].items()} == {"like": 1, "early": 1}
    assert (first.key, first.value, home) == (again.key, again.value, again_home)
    assert dict(again.headers) == {"replay_of": b"events/0/0", "replay_items": b"1,2"}


async def test_each_letter_is_replayed_once_across_restarts(tmp_path: Path) -> None:
    """Marks are kept with the replay: a second one, also after a restart, skips what was replayed, unless told."""
    async with running(tmp_path) as node:
        await process(node, b"hello", key=b"ann")
        assert (await replay(node))["letters"] == 1
        await node.quiesce()
    async with running(tmp_path) as node:
        [old, new] = await ask(node, "dead_letters")
        assert (old["replayed"], new["replayed"]) == (format_time(NOW_MS), None)
        assert await replay(node) == {"letters": 1, "records": 1, "replayed_before": 1, "gone": 0}
        await node.quiesce()
        assert (await replay(node, again=True))["letters"] == 3


async def test_two_replays_at_once_replay_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays that run at the same time, on a transport that takes its time, do not both take a letter."""
    async with running(tmp_path) as node:
        await process(node, *[b"hello"] * 300, key=b"ann")
        commit = node.engine.transport.commit

        async def slowly(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
            await asyncio.sleep(0.001)
            await commit(partition, batch, outputs)

        monkeypatch.setattr(node.engine.transport, "commit", slowly)
        await asyncio.gather(replay(node), replay(node))
        await node.quiesce()
        sources = [dict(record.headers).get("replay_of") for _, record in await records(node, "events")]

    replayed = [source for source in sources if source is not None]
    assert len(replayed) == len(set(replayed)) >= 300


async def test_a_replay_that_fails_marks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark and replay are one commit: where it fails, neither is there, and a later replay takes the letter."""
    async with running(tmp_path) as node:
        await process(node, b"hello", key=b"ann")
        with monkeypatch.context() as patched:
            patched.setattr(node.store, "write", lambda batch: (_ for _ in ()).throw(OSError("disk")))
            [(home, _)] = await records(node, "dead-letters")
            with pytest.raises(OSError, match="disk"):
                await node.dead_letters.replay(home)
    async with running(tmp_path) as node:
        assert [row["replayed"] for row in await ask(node, "dead_letters")] == [None]
        assert (await replay(node))["letters"] == 1


@pytest.mark.parametrize("seed", range(3))
async def test_lists_are_the_newest_of_their_reason(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a list is read in windows and pages, it is the end of what a look at the whole topic gives."""
    monkeypatch.setattr(dead_letters, "WINDOW_RECORDS", 7)
    monkeypatch.setattr(dead_letters, "PAGE_RECORDS", 3)
    dice = Random(seed)
    bad = {b"hello": "not_json", b"{}": "empty", b'{"type":"x"}': "unknown_type"}
    clock = ManualClock(NOW_MS)
    async with running(tmp_path, clock) as node:
        for _ in range(40):
            clock.advance(1)
            await process(node, dice.choice(list(bad)), key=dice.choice([b"ann", b"bob", b"cy"]))
        every = sorted(await records(node, "dead-letters"), key=lambda row: row[1].append_ms)
        shown = [(f"{partition}/{record.offset}", bad[record.value]) for partition, record in every]
        for reason in ("", *bad.values(), "other"):
            wanted = [letter for letter, found in shown if reason in ("", found)]
            for limit in (1, 5, 100):
                rows = await ask(node, "dead_letters", reason=reason, limit=limit)
                assert [row["letter"] for row in rows] == wanted[-limit:]
                assert {row["reason"] for row in rows} <= {reason} if reason else True


async def test_a_limit_and_a_reason_bound_a_replay(tmp_path: Path) -> None:
    """A replay takes the oldest letters of its reason, and no more than its limit."""
    async with running(tmp_path) as node:
        await process(node, b"hello", b"{}", b"world", b"again", key=b"ann")
        assert (await replay(node, reason="not_json", limit=2))["letters"] == 2
        await node.quiesce()
        rows = sorted(await ask(node, "dead_letters"), key=lambda row: int(row["letter"].partition("/")[2]))

    assert {row["value"]: row["replayed"] is not None for row in rows[:4]} == {
        "hello": True,
        "{}": False,
        "world": True,
        "again": False,
    }


async def refused(data: Path, count: int) -> list[str]:
    """Fill a folder with dead letters of as many records, each about one event that came too early; their users."""
    users = [f"u{number % 37}" for number in range(count)]
    async with running(data) as node:
        for start in range(0, count, 500):
            await process(node, *[event(user, "early", time=LATER) for user in users[start : start + 500]])
    return users


async def applied_once(data: Path, users: list[str]) -> None:
    """Hold a folder to this: every letter went back into events once, and every item was applied once."""
    async with running(data, ManualClock(NOW_MS + 2 * HOUR_MS)) as node:
        await node.quiesce()
        sources = [dict(record.headers).get("replay_of") for _, record in await records(node, "events")]
        replays = [source for source in sources if source is not None]
        assert len(replays) == len(set(replays)) == len(users)
        for user in set(users):
            found = await ask(node, "user", external_id=user)
            assert found["events"]["early"]["count"] == users.count(user)


@pytest.mark.parametrize("seed", range(2))
async def test_killed_at_any_moment_a_replay_goes_on_and_repeats_nothing(seed: int, tmp_path: Path) -> None:
    """Killed with -9 before, after and between its commits, again and again, it ends with each item applied once."""
    users = await refused(tmp_path, 1_000)
    dice, kills = Random(seed), 0
    for attempt in range(12):
        plan = [f"write:{dice.randrange(1, 15)}:{dice.choice(['before', 'after'])}"] if attempt < 3 else []
        command = [sys.executable, "-m", "tests.agents.replay_once", str(tmp_path), *plan]
        replaying = await asyncio.create_subprocess_exec(*command)
        code = await replaying.wait()
        if not code:
            break
        assert code == -signal.SIGKILL
        kills += 1
    assert kills == 3
    await applied_once(tmp_path, users)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_replay_stops_when_asked_and_goes_on_later(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM end the command between two portions, with what it did; the next one does the rest."""
    users = await refused(tmp_path, 200)
    command = [sys.executable, "-m", "tests.agents.replay_once", str(tmp_path), f"signal:{number.value}:3"]
    replaying = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await replaying.communicate()
    told = json.loads(out)
    assert replaying.returncode == 130
    assert told["stopped"]
    assert 0 < told["letters"] < 200
    again = await asyncio.create_subprocess_exec(*command[:-1], stdout=asyncio.subprocess.PIPE)
    out, _ = await again.communicate()
    assert json.loads(out)["letters"] == 200 - told["letters"]
    await applied_once(tmp_path, users)


async def test_portions_count_each_letter_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small its portions, a replay says the same, and does not follow letters that come back behind it."""
    monkeypatch.setattr("agents.web.replay.PORTION_LETTERS", 3)
    async with running(tmp_path) as node:
        await process(node, *[b"hello", b"{}"] * 20, key=b"ann")  # refused again as often as it is replayed
        first = await replay_all(node, reason="not_json", limit=7, again=False)
        await node.quiesce()  # those seven are back, behind the others
        rest = await replay_all(node, reason="not_json", limit=0, again=False)
        await node.quiesce()
        assert len(await records(node, "dead-letters")) == 67
    assert PORTION_LETTERS > 3
    assert (first["letters"], rest["letters"], rest["replayed_before"]) == (7, 20, 7)
