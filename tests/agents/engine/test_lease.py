"""What proves that a partition is still ours: a commit that the broker took, counted from when it was begun."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from agents.engine.kafka import committer as committer_module
from agents.engine.kafka.batches import Sent
from agents.engine.kafka.committer import LEASE_S, Committer
from agents.engine.kafka.topics import CHANGELOG
from agents.engine.pace import Pace
from config.settings import load_settings
from streams.errors import OutsideFailing
from streams.records import Place
from tables.store import Store


class Broker:
    """Takes every transaction; how long each lasts, by our clock, is said before."""

    def __init__(self, lasting_s: Sequence[float]) -> None:
        self.now_s = 1_000.0
        self.lasting_s = list(lasting_s)

    async def produce(self, *_: Any) -> dict[Place, Sent]:
        """One transaction's answer, after the process has perhaps stood still."""
        self.now_s += self.lasting_s.pop(0)
        return {(CHANGELOG, 0): Sent()}


@asynccontextmanager
async def committing(folder: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Committer]:
    """A committer whose transactions go to that broker, by that broker's clock."""
    monkeypatch.setattr(committer_module, "perf_counter", lambda: broker.now_s)
    monkeypatch.setattr(Committer, "_produce", broker.produce)
    settings = load_settings({"HEADRACE_BROKER": "kafka://127.0.0.1:9", "HEADRACE_DATA": str(folder)})
    store = Store(folder / "db")
    made = Committer(settings, cast("Any", None), store, Pace())
    made.admit(0)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        store.close()


@pytest.mark.parametrize(
    ("lasting_s", "asked"),
    [([0.01], 1), ([LEASE_S / 2], 1), ([10 * LEASE_S, 0.01], 2)],
    ids=["quick", "slow", "frozen"],
)
async def test_a_stale_answer_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting_s: list[float], asked: int
) -> None:
    """An answer that lay unread while the process stood still is old: the broker is asked once more."""
    broker = Broker(lasting_s)
    async with committing(tmp_path, broker, monkeypatch) as committer:
        await committer.confirm(0)
        assert len(lasting_s) - len(broker.lasting_s) == asked
        await committer.confirm(0)  # proven lately: nobody is asked
    assert not broker.lasting_s


async def test_a_commit_of_nothing_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty batch goes to no broker, so whoever acts on the world after it asks first."""
    broker = Broker([0.01])
    async with committing(tmp_path, broker, monkeypatch) as committer:
        await committer.commit(0, committer._store.batch(recording=True), ())
        assert broker.lasting_s == [0.01]
        await committer.confirm(0)
    assert not broker.lasting_s


async def test_a_failed_commit_is_told_to_whoever_waits_and_whoever_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever on a broker that refused: what was handed in fails, and what is handed in later, too."""
    broker = Broker([])
    async with committing(tmp_path, broker, monkeypatch) as committer:
        batch = committer._store.batch(recording=True)
        batch.put("meta", b"x\0\0\0", b"")
        with pytest.raises(IndexError):
            await committer.commit(0, batch, ())
        with pytest.raises(OutsideFailing, match="IndexError"):
            await committer.commit(0, batch, ())
        await committer.release()
