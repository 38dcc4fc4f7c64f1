"""The commits of one partition: what its agents hand in goes out together, in one transaction after the other."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from agents.engine.kafka.batches import Row, Sent, send
from agents.engine.kafka.rhythm import Rhythm
from agents.engine.kafka.topics import CHANGELOG, topic_name
from agents.engine.pace import Pace
from config import metrics
from config.settings import Settings
from streams.errors import Revoked
from streams.records import Output, Place
from tables.changelog import Changelog
from tables.store import Batch, Change, Store

FULL_RECORDS: Final = 500
LATER_S: Final = 0.5
LEASE_S: Final = 2.0
_LEASE_KEY: Final = b"lease\0"


class _Work(NamedTuple):
    """One commit handed in; nobody waits for one without a future."""

    batch: Batch
    outputs: Sequence[Output]
    done: asyncio.Future[None] | None


class Committer:
    """Owns the partition's transactional id. After any error nobody knows what was kept: the process must end."""

    def __init__(
        self, settings: Settings, partition: int, producer: AIOKafkaProducer, store: Store, pace: Pace, rhythm: Rhythm
    ) -> None:
        """`producer` is started and transactional, and the store is at the partition's last commit."""
        self._settings = settings
        self._partition = partition
        self._pace = pace
        self._rhythm = rhythm
        self._producer = producer
        self._store = store
        self._changelog = Changelog(store, partition)
        self._queue: list[_Work] = []
        self._records = 0
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._transacting = asyncio.Lock()
        self._is_lost = False
        self._proven_s = -LEASE_S

    async def commit(self, batch: Batch, outputs: Sequence[Output]) -> None:
        """Hand in, and wait until it is kept. Raises Revoked when the partition has gone elsewhere."""
        if self._is_lost:
            raise Revoked(f"partition {self._partition} belongs to another worker now")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_in(_Work(batch, outputs, done))
        self._wake.set()
        await done

    def later(self, batch: Batch) -> None:
        """Hand in state that may be lost in a crash: it goes with the next commit, or soon."""
        self._hand_in(_Work(batch, (), None))
        asyncio.get_running_loop().call_later(LATER_S, self._wake.set)

    async def confirm(self) -> None:
        """Return if the broker has lately taken a commit of ours; else ask it by committing, until one was quick."""
        while perf_counter() - self._proven_s > LEASE_S:
            batch = self._store.batch(recording=True)
            batch.put("meta", _LEASE_KEY + self._partition.to_bytes(2, "big"), b"")
            await self.commit(batch, ())

    async def drained(self) -> None:
        """Wait until everything handed in is kept."""
        if self._queue and not self._is_lost:
            await self.commit(self._store.batch(recording=True), ())

    async def suspend(self) -> None:
        """Keep what was handed in; what comes after that waits for `resume`."""
        await self.drained()
        self._allowed.clear()
        async with self._transacting:  # one that was under way has ended
            pass

    def resume(self) -> None:
        """Go on."""
        self._allowed.set()

    def abandon(self) -> None:
        """Fail what waits: our transactions would be refused, and that ends a process."""
        self._is_lost = True
        works, self._queue = self._queue, []
        for work in works:
            if work.done is not None and not work.done.done():
                work.done.set_exception(Revoked(f"partition {self._partition} belongs to another worker now"))

    def _hand_in(self, work: _Work) -> None:
        self._queue.append(work)
        self._records += len(work.outputs) + len(work.batch.changes)
        if self._records >= FULL_RECORDS:
            self._full.set()

    async def run(self) -> None:
        """Commit what is handed in, for as long as the partition is open."""
        while True:
            await self._wake.wait()
            await self._pause()
            await self._allowed.wait()
            self._wake.clear()
            self._full.clear()
            works, self._queue, self._records = self._queue, [], 0
            if works:
                async with self._transacting:
                    await self._transact(works)
                for work in works:
                    if work.done is not None and not work.done.done():
                        work.done.set_result(None)

    async def _pause(self) -> None:
        """Leave a gap between commits, in which slices grow, unless much waits already."""
        left = self._rhythm.wait_s(self._partition)
        if left > 0:
            try:
                async with asyncio.timeout(left):
                    await self._full.wait()
            except TimeoutError:
                pass

    async def _transact(self, works: list[_Work]) -> None:
        began = perf_counter()
        self._rhythm.begin(self._partition)
        outputs = [output for work in works for output in work.outputs]
        changes = [change for work in works for change in work.batch.changes]
        batch = works[0].batch
        for work in works[1:]:  # in their order, as in the changelog: two may write the same key
            batch.add(work.batch)
        if outputs or changes:
            logged = await self._produce(outputs, changes)
            if changes:
                self._changelog.stage(batch, logged.next_offset, logged.append_ms)
                metrics.CHANGELOG_BYTES.inc(logged.size)
            # From its begin: the answer may have lain unread for as long as this process stood still.
            self._proven_s = began
        self._store.write(batch)
        metrics.COMMIT_SECONDS.observe(perf_counter() - began)

    async def _produce(self, outputs: list[Output], changes: list[Change]) -> Sent:
        groups: dict[Place, list[Row]] = {}
        for output in outputs:
            row = (output.key, output.value, output.headers)
            groups.setdefault((output.topic, output.partition), []).append(row)
        groups[CHANGELOG, self._partition] = self._changelog.rows(changes)
        await self._producer.begin_transaction()
        sent = [await self._send(rows, place) for place, rows in groups.items()]
        for each in sent:
            await each.all()  # each one: aiokafka commits around a refused batch
        await self._producer.commit_transaction()
        return sent[-1]

    async def _send(self, rows: Sequence[Row], place: Place) -> Sent:
        return await send(self._producer, topic_name(self._settings, place[0]), place[1], rows, self._pace)
