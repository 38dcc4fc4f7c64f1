"""Bad input through a whole node: each record is refused with its reason, raw, and its neighbours are applied."""

from pathlib import Path

import pytest

from tests.agents.nodes import NOW_MS, event, process, records, running

DEEP = b"[" * 10_000 + b"]" * 10_000
HEAD = b'{"type":"event","external_id":"ann","name":"like"'
CASES: dict[str, tuple[bytes, bytes | None, str, str]] = {
    "no JSON": (b"hello", b"ann", "not_json", ""),
    "empty": (b"", b"ann", "empty", ""),
    "empty body": (b"{}", b"ann", "empty", ""),
    "wrong type": (b'{"type":"event","external_id":"ann","name":7}', b"ann", "wrong_type", "name"),
    "no user": (b'{"type":"event","name":"like"}', None, "missing_user", "external_id"),
    "unknown type": (b'{"type":"party","external_id":"ann"}', b"ann", "unknown_type", "type"),
    "five megabytes": (HEAD + b',"properties":{"p":"' + b"x" * 5_000_000 + b'"}}', b"ann", "too_large", ""),
    "ten thousand deep": (HEAD + b',"properties":{"p":' + DEEP + b"}}", b"ann", "too_deep", ""),
    "invalid UTF-8": (HEAD + b',"properties":{"p":"\xff"}}', b"ann", "invalid_utf8", ""),
    "NaN": (HEAD + b',"properties":{"p":NaN}}', b"ann", "not_json", ""),
    "ten thousand attributes": (
        b'{"type":"attributes","external_id":"ann",' + b",".join(b'"a%d":1' % at for at in range(10_000)) + b"}",
        b"ann",
        "too_many_attributes",
        "",
    ),
    "year 9999": (HEAD + b',"time":"9999-12-31T23:59:59Z"}', b"ann", "time_in_future", "time"),
    "another user's key": (HEAD + b"}", b"bob", "key_mismatch", "external_id"),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_record_is_refused_alone(name: str, tmp_path: Path) -> None:
    """The dead letter holds the raw bytes, where they lay and why; events before and after it are applied."""
    value, key, reason, field = CASES[name]
    async with running(tmp_path) as node:
        await process(node, event("ann"))
        await process(node, value, key=key)
        await process(node, event("ann"))
        [(partition, letter)] = await records(node, "dead-letters")
        [(home, bad)] = [found for found in await records(node, "events") if found[1].value == value]
        totals = node.queries.totals()

    headers = {header: text.decode() for header, text in letter.headers}
    assert (letter.value, letter.key, partition) == (value, key, home)
    assert {part: headers[part] for part in ("topic", "partition", "offset", "item", "reason", "field")} == {
        "topic": "events",
        "partition": str(home),
        "offset": str(bad.offset),
        "item": "0",
        "reason": reason,
        "field": field,
    }
    assert headers["at"].startswith("2025-11-24T16:00:00.000")
    assert bad.append_ms == NOW_MS
    assert (totals["custom_events"], totals["users"], totals["dead_letters"]) == (2, 1, 1)


async def test_a_flood_of_bad_records_stops_nothing(tmp_path: Path) -> None:
    """All of them in one slice, between good ones: each is refused once, and every good one is applied."""
    async with running(tmp_path) as node:
        for value, key, _, _ in CASES.values():
            await process(node, event("ann"), event("bob"))
            await process(node, value, key=key)
        letters = [dict(record.headers)["reason"].decode() for _, record in await records(node, "dead-letters")]
        totals = node.queries.totals()

    assert sorted(letters) == sorted(reason for _, _, reason, _ in CASES.values())
    assert (totals["custom_events"], totals["users"]) == (2 * len(CASES), 2)
