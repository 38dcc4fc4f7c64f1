"""Refusals of the fold through a whole node: their dead letters hold the producer's bytes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from agents import intake
from agents.refusals import REFUSED_MAX, with_records
from config.clock import ManualClock
from streams import topics
from streams.effects import Refused
from streams.mailbox import Cause
from streams.outputs import to_outputs
from streams.profiles.room import ROW_ATTRIBUTES_MAX
from streams.records import Output
from tables.store import Batch
from tests.agents.nodes import NOW_MS, process, records, running


def attributes(user: str, start: int, count: int) -> bytes:
    """An attributes object with so many fields."""
    return json.dumps(
        {"type": "attributes", "external_id": user, **{f"f{start + at}": at for at in range(count)}}
    ).encode()


@pytest.mark.parametrize("key", [b"ann", None])
async def test_the_raw_bytes_and_key_are_kept(key: bytes | None, tmp_path: Path) -> None:
    """What a row cannot take is dead-lettered as the producer sent it, byte for byte, with its key and place."""
    too_much = attributes("ann", ROW_ATTRIBUTES_MAX, 1)
    async with running(tmp_path) as node:
        await process(node, attributes("ann", 0, ROW_ATTRIBUTES_MAX), key=b"ann")
        await process(node, too_much, key=key)
        [(_, letter)] = await records(node, "dead-letters")
        [(home, bad)] = [found for found in await records(node, "events") if found[1].value == too_much]

    headers = {name: value.decode() for name, value in letter.headers}
    assert (letter.key, letter.value) == (key, too_much)
    assert (headers["reason"], headers["partition"], headers["offset"]) == ("row_limit", str(home), str(bad.offset))
    assert "value" not in headers


async def test_many_refusals_in_one_slice_are_all_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More refusals than one commit may take are split: each has its own record, in order, none lost or doubled."""
    values = [attributes("ann", ROW_ATTRIBUTES_MAX + at, 1) for at in range(3 * REFUSED_MAX + 1)]
    sizes = []
    async with running(tmp_path) as node:
        commit = node.engine.transport.commit

        async def counted(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
            sizes.append(sum(output.topic == topics.DEAD_LETTERS.name for output in outputs))
            await commit(partition, batch, outputs)

        monkeypatch.setattr(node.engine.transport, "commit", counted)
        await process(node, attributes("ann", 0, ROW_ATTRIBUTES_MAX), *values, key=b"ann")
        letters = [letter.value for _, letter in await records(node, "dead-letters")]

    assert letters == values
    assert max(sizes) == REFUSED_MAX


async def test_where_the_record_is_gone_the_letter_stands_in(tmp_path: Path) -> None:
    """A record that retention has dropped, or of another topic, is not there: the letter says that it stands in."""
    clock = ManualClock(NOW_MS)
    async with running(tmp_path, clock) as node:
        for value in (b"first", b"second", b"third"):
            await process(node, value, key=b"ann")
            clock.advance(1)
        transport = node.engine.transport
        [(home, _), *_] = await records(node, "events")
        assert await transport.trim(topics.EVENTS.name, home, 3, NOW_MS + 10) == 2
        topic_id = transport.topic_id(topics.EVENTS.name)
        causes = [Cause(topic_id, home, 2, 0), Cause(topic_id, home, 0, 0), Cause("another", home, 2, 0)]
        refused = [Refused("row_limit", "", "full", cause, "ann", NOW_MS, b"letter") for cause in causes]
        outputs = to_outputs(await with_records(transport, list(refused)), home)

    assert [(output.value, ("value", b"letter") in output.headers) for output in outputs] == [
        (b"third", False),
        (b"letter", True),
        (b"letter", True),
    ]


async def test_records_refused_at_intake_fill_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of bodies whose every object is refused is committed in parts: no letter, and no good event, is lost."""
    monkeypatch.setattr(intake, "REFUSED_BYTES_MAX", 2_000)
    body = json.dumps({"events": [{"external_id": "ann"}] * 5}).encode()
    good = json.dumps({"type": "event", "external_id": "ann", "name": "like"}).encode()
    sizes = []
    async with running(tmp_path) as node:
        commit = node.engine.transport.commit

        async def counted(partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
            sizes.append(sum(len(each.value) for each in outputs if each.topic == topics.DEAD_LETTERS.name))
            await commit(partition, batch, outputs)

        monkeypatch.setattr(node.engine.transport, "commit", counted)
        await process(node, *[body, good] * 20, key=b"ann")
        letters = [letter.value for _, letter in await records(node, "dead-letters")]
        totals = node.queries.totals()

    assert letters == [body] * 100
    assert (totals["custom_events"], totals["dead_letters"]) == (20, 100)
    assert max(sizes) < 2_000 + 5 * len(body)
