"""What a worker reads of its own commits: only what its store holds, too."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agents.engine.kafka.batches import Sent
from agents.engine.kafka.committer import Committer, _Share
from agents.engine.kafka.transport import KafkaTransport
from agents.engine.pace import Pace
from config.clock import SystemClock
from streams.records import Output
from tables.store import Store
from tests.broker.kafka import Broker
from tests.broker.workers import Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

PLACE = ("sends.log", 3)
COMMITS = 5
LAG_S = 0.1


async def test_a_dispatch_is_read_after_its_users_row_is_stored(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the store takes after the brokers' commit, nobody reads a record whose row is not there."""
    keep = Committer._keep

    async def keep_late(self: Committer, share: _Share, logged: Sent | None) -> None:
        await asyncio.sleep(LAG_S)
        await keep(self, share, logged)

    monkeypatch.setattr(Committer, "_keep", keep_late)
    settings, store, failures = Site(broker, tmp_path).settings("data"), Store(tmp_path / "db"), list[BaseException]()
    transport = KafkaTransport(settings, store, SystemClock(), Pace(), failures.append)
    await transport.start()
    await transport.open(PLACE[1])
    transport.follow({PLACE: 0})
    commits = [asyncio.create_task(_commit(transport, number)) for number in range(COMMITS)]
    read, offset = 0, 0
    while read < COMMITS:
        transport.listen()
        for record in transport.read(*PLACE, offset):
            assert store.get("meta", record.value) == b"stored"
            read, offset = read + 1, record.offset + 1
        await transport.wait(0.01)
    await asyncio.gather(*commits)
    await transport.close(PLACE[1])
    await transport.stop()
    store.close()

    assert not failures


async def _commit(transport: KafkaTransport, number: int) -> None:
    await asyncio.sleep(number * LAG_S)
    batch = transport.batch()
    key = b"row\0%d" % number
    batch.put("meta", key, b"stored")
    await transport.commit(PLACE[1], batch, [Output(*PLACE, b"user", key)])
