"""The fleet's harness itself: every name that it patches exists, its plan is whole, and its verifier is not blind."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import Counter
from typing import Any

import pytest

from tests.chaos.fleet.catalogue import FAULTS
from tests.chaos.fleet.line import SIDES, Side, line_to
from tests.chaos.fleet.planted import BUGS
from tests.chaos.fleet.promotions import promotions
from tests.chaos.fleet.run import BROKERS, FLEET, HITS, QUICK, names_of, parts_of, wanted_of
from tests.chaos.fleet.sends import CAMPAIGNS, TOPICS, hold_sends
from tests.chaos.fleet.steps import steps
from tests.chaos.points import find
from tests.chaos.verifier import Verdict
from tests.chaos.workload import Workload

TARGETS = {*(step.target for step in steps().values()), *(bug.target for bug in BUGS.values())}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_patched_name_is_a_function_of_the_product(target: str) -> None:
    """A function that is renamed or moved turns this red, before a step silently stops to exist."""
    owner, name = find(target)

    assert inspect.isfunction(getattr(owner, name))


def test_every_bug_is_hunted_at_steps_that_exist() -> None:
    """A bug names the steps at which a worker is frozen to bring it to light, and the short run real faults."""
    assert {step for bug in BUGS.values() for step in bug.points} <= steps().keys() | FAULTS.keys()
    assert len(BUGS) >= 3
    assert set(QUICK) <= FAULTS.keys()


@pytest.mark.parametrize("seed", [1, 2])
def test_a_plan_holds_every_fault_as_often_as_asked(seed: int) -> None:
    """Cut into sessions, nothing is dropped and nothing added; a name's part, and one kind alone, can be had."""
    wanted = wanted_of("")
    for kind in (FLEET, BROKERS):
        cut = Counter(name for part in parts_of(wanted, kind, seed) for name in part)
        assert cut == Counter(dict.fromkeys(names_of(kind), HITS[kind]))
    assert {kind for kind, _ in wanted_of("brokers")} == {BROKERS}
    assert {name for _, name in wanted_of("fleet: frozen")} == {name for name in FAULTS if "frozen" in name}
    assert not wanted_of("mail")


def test_the_verifier_sees_a_send_too_few_or_too_many() -> None:
    """Topics that hold what the model wants pass; one send less, one more, or one id for two do not."""
    work, sound = Workload(7), Verdict()
    work.told(work.part(300), acknowledged=True)

    def topics() -> dict[str, list[dict[str, Any]]]:
        return {
            TOPICS[channel]: [
                {"dispatch_id": f"{user}{name}{n}", "user": user, "campaign": name, "event_properties": {"n": n}}
                for name in names
                for user, _, n in sorted(work.wanted(name))
            ]
            for channel, names in CAMPAIGNS.items()
        }

    hold_sends(work, topics(), sound)
    assert not sound.faults

    missing, twice, mixed = topics(), topics(), topics()
    missing["sends.webhook"].pop()
    twice["sends.email"].append(twice["sends.email"][0])
    mixed["sends.email"][0] = {**mixed["sends.email"][0], "dispatch_id": mixed["sends.email"][1]["dispatch_id"]}
    for broken in (missing, twice, mixed):
        verdict = Verdict()
        hold_sends(work, broken, verdict)
        assert verdict.faults
        assert verdict.lost + verdict.doubled


def test_a_promotion_counts_only_if_the_copy_was_read_on() -> None:
    """A copy that held nothing, or that was read anew, and a restore without any copy are no promotions."""
    said = [
        {"event": "standby promoted", "partition": 0, "offset": 7},
        {"event": "partition restored", "partition": 0, "offset": 7, "records": 3},
        {"event": "standby promoted", "partition": 1, "offset": 9},
        {"event": "standby promoted", "partition": 2, "offset": 0},
        {"event": "standby promoted", "partition": 3, "offset": 9},
        {"event": "partition restored", "partition": 3, "offset": 0, "records": 12},
        {"event": "partition restored", "partition": 4, "offset": 5, "records": 12},
    ]
    assert promotions("no JSON\n" + "\n".join(map(json.dumps, said))) == [0, 1]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("forgets", [False, True])
async def test_a_silent_line_answers_nobody_and_closes_nothing(side: Side, *, forgets: bool) -> None:
    """In the silence no answer comes; behind it old connections get theirs or never do, and new ones do."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, line_to(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as (line, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        line.hush(side)
        writer.write(b"b")
        waiting = asyncio.create_task(reader.read(1))
        assert not (await asyncio.wait([waiting], timeout=0.2))[0]
        line.resume(forgets=forgets)
        done, _ = await asyncio.wait([waiting], timeout=0.2 if forgets else 5)
        assert bool(done) != forgets
        other, new = await asyncio.open_connection("127.0.0.1", port)
        new.write(b"c")
        assert await other.readexactly(1) == b"c"
        waiting.cancel()
        for each in (writer, new):
            each.close()
