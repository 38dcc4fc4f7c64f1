"""The commits of a process: what the agents of all its partitions hand in goes out in one transaction after another."""

import asyncio
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from agents.engine.kafka.batches import Row, Sent, send_all
from agents.engine.kafka.topics import CHANGELOG, topic_name
from agents.engine.pace import Pace
from config import metrics
from config.settings import Settings
from streams.errors import OutsideFailing, Revoked
from streams.records import Output, Place
from tables.changelog import Changelog
from tables.store import Batch, Change, Store

GAP_S: Final = 0.02
FULL_RECORDS: Final = 2_000
LATER_S: Final = 0.5
LEASE_S: Final = 2.0
_LEASE_KEY: Final = b"lease\0"


class _Work(NamedTuple):
    """One commit handed in; nobody waits for one without a future."""

    batch: Batch
    outputs: Sequence[Output]
    done: asyncio.Future[None] | None


class _Desk:
    """What waits for one open partition, and whether it may go out: only while the partition is claimed."""

    def __init__(self, changelog: Changelog) -> None:
        self.changelog = changelog
        self.works: list[_Work] = []
        self.is_claimed = True


class _Share(NamedTuple):
    """What one partition gives to a transaction."""

    partition: int
    desk: _Desk
    works: list[_Work]

    @property
    def changes(self) -> list[Change]:
        return [change for work in self.works for change in work.batch.changes]

    @property
    def outputs(self) -> list[Output]:
        return [output for work in self.works for output in work.outputs]

    def joined(self) -> Batch:
        """In their order, as in the changelog: two works may write the same key."""
        batch = self.works[0].batch
        for work in self.works[1:]:
            batch.add(work.batch)
        return batch


class Committer:
    """Owns the process's transactional id. After any error nobody knows what was kept: the process must end.

    A partition is first admitted, which takes a claim (`claims.py`), and from its release on nothing of it goes out
    before the next claim.
    """

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        store: Store,
        pace: Pace,
        on_kept: Callable[[], None] = lambda: None,
    ) -> None:
        """`producer` is started and transactional; `on_kept` is called when `unkept` has shrunk."""
        self._settings = settings
        self._pace = pace
        self._producer = producer
        self._store = store
        self.unkept: dict[Place, int] = {}
        """The first offsets of a transaction that may be readable already, and is not yet in the store: to be read
        only then, since whoever reads a dispatch reads the user's row, too."""
        self._on_kept = on_kept
        self._desks: dict[int, _Desk] = {}
        self._error: BaseException | None = None
        self._records = 0
        self._began_s = -GAP_S
        self._proven_s = -LEASE_S
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._transacting = asyncio.Lock()

    def admit(self, partition: int) -> None:
        """The partition is claimed, and the store is at its last commit: what is handed in for it may go out."""
        desk = self._desks.get(partition)
        if desk is None:
            self._desks[partition] = _Desk(Changelog(self._store, partition))
        else:
            desk.is_claimed = True
            self._wake.set()

    def unclaimed(self) -> list[int]:
        """The admitted partitions that were released since."""
        return sorted(partition for partition, desk in self._desks.items() if not desk.is_claimed)

    async def commit(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """Hand in, and wait until it is kept. Raises Revoked when the partition has gone elsewhere."""
        desk = self._desk(partition)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_in(desk, _Work(batch, outputs, done))
        self._wake.set()
        await done

    def later(self, partition: int, batch: Batch) -> None:
        """Hand in state that may be lost in a crash: it goes with the next commit, or soon."""
        self._hand_in(self._desk(partition), _Work(batch, (), None))
        asyncio.get_running_loop().call_later(LATER_S, self._wake.set)

    async def confirm(self, partition: int) -> None:
        """Return if the broker has lately taken a commit of ours; else ask it by committing, until one was quick."""
        while perf_counter() - self._proven_s > LEASE_S or not self._desk(partition).is_claimed:
            batch = self._store.batch(recording=True)
            batch.put("meta", _LEASE_KEY + partition.to_bytes(2, "big"), b"")
            await self.commit(partition, batch, ())

    async def release(self, partitions: Sequence[int] | None = None) -> None:
        """Keep what was handed in, and with it that these claimed partitions, or all, are free to be claimed."""
        async with self._transacting:
            leaving = [
                desk
                for partition, desk in self._desks.items()
                if desk.is_claimed and self._error is None and (partitions is None or partition in partitions)
            ]
            for desk in leaving:
                batch = self._store.batch(recording=True)
                desk.changelog.stage_owner(batch, "")
                desk.works.append(_Work(batch, (), None))
            if leaving:
                await self._transact(leaving)

    def drop(self, partition: int) -> None:
        """Forget the partition: what waits for it, and what is handed in from now on, raises Revoked."""
        desk = self._desks.pop(partition, None)
        for work in () if desk is None else desk.works:
            if work.done is not None and not work.done.done():
                work.done.set_exception(_revoked(partition))

    def _desk(self, partition: int) -> _Desk:
        if self._error is not None:
            raise OutsideFailing(f"commits have ended with {self._error!r}") from self._error
        desk = self._desks.get(partition)
        if desk is None:
            raise _revoked(partition)
        return desk

    def _hand_in(self, desk: _Desk, work: _Work) -> None:
        desk.works.append(work)
        self._records += len(work.outputs) + len(work.batch.changes)
        if self._records >= FULL_RECORDS:
            self._full.set()

    async def run(self) -> None:
        """Commit what is handed in, for as long as the process lives."""
        while True:
            await self._wake.wait()
            await self._pause()
            async with self._transacting:
                self._wake.clear()
                await self._transact()

    async def _pause(self) -> None:
        """Leave a gap between the begins of two transactions, in which slices grow, unless much waits already."""
        left = self._began_s + GAP_S - perf_counter()
        if left > 0:
            try:
                async with asyncio.timeout(left):
                    await self._full.wait()
            except TimeoutError:
                pass

    async def _transact(self, leaving: Sequence[_Desk] = ()) -> None:
        shares = [
            _Share(partition, desk, desk.works)
            for partition, desk in self._desks.items()
            if desk.works and desk.is_claimed
        ]
        self._records = 0
        self._full.clear()
        if not shares:
            return
        began = self._began_s = perf_counter()
        for share in shares:
            share.desk.works = []
        for desk in leaving:  # what is handed in from here on comes after the release
            desk.is_claimed = False
        try:
            await self._bring(shares, began)
        except BaseException as error:
            self._fail(shares, error)
            raise
        metrics.COMMIT_SECONDS.observe(perf_counter() - began)

    async def _bring(self, shares: Sequence[_Share], began: float) -> None:
        """To the brokers, if there is anything for them, and to the store."""
        if not any(work.outputs or work.batch.changes for share in shares for work in share.works):
            for share in shares:
                await self._keep(share, None)
            return
        logged = await self._produce(shares)
        for share in shares:
            await self._keep(share, logged.get((CHANGELOG, share.partition)))
        self.unkept = {}
        self._on_kept()
        # From its begin: the answer may have lain unread for as long as this process stood still.
        self._proven_s = began

    def _fail(self, shares: Sequence[_Share], error: BaseException) -> None:
        """Let whoever waits know, and whoever hands in from now on."""
        self._error = error
        for works in (*(share.works for share in shares), *(desk.works for desk in self._desks.values())):
            for work in works:
                if work.done is not None and not work.done.done():
                    if isinstance(error, asyncio.CancelledError):
                        work.done.cancel()
                    else:
                        work.done.set_exception(error)

    async def _keep(self, share: _Share, logged: Sent | None) -> None:
        """What a transaction has kept is written to the store, partition by partition: each knows how far it is."""
        await self._pace.breathe()
        batch = share.joined()
        if logged is not None:
            share.desk.changelog.stage(batch, logged.next_offset, logged.append_ms)
            metrics.CHANGELOG_BYTES.inc(logged.size)
        self._store.write(batch)
        for work in share.works:
            if work.done is not None and not work.done.done():
                work.done.set_result(None)

    async def _produce(self, shares: Sequence[_Share]) -> dict[Place, Sent]:
        groups: dict[Place, list[Row]] = {}
        for share in shares:
            for output in share.outputs:
                row = (output.key, output.value, output.headers)
                groups.setdefault((output.topic, output.partition), []).append(row)
            changes = share.changes
            if changes:
                groups[CHANGELOG, share.partition] = share.desk.changelog.rows(changes)
        named = {(topic_name(self._settings, topic), partition): rows for (topic, partition), rows in groups.items()}
        await self._producer.begin_transaction()
        sent = await send_all(self._producer, named, self._pace)
        for each in sent:
            await each.all()  # each one: aiokafka commits around a refused batch
        self.unkept = {place: each.first_offset for place, each in zip(groups, sent, strict=True)}
        await self._producer.commit_transaction()
        return dict(zip(groups, sent, strict=True))


def _revoked(partition: int) -> Revoked:
    return Revoked(f"partition {partition} belongs to another worker now")
