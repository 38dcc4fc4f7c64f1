"""The Kafka transport: what its parts do, behind the interface that the embedded log has too."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final
from uuid import uuid4

import structlog
from aiokafka import AIOKafkaProducer

from agents.engine.kafka.claims import Claims
from agents.engine.kafka.clients import start_producer
from agents.engine.kafka.committer import Committer
from agents.engine.kafka.feeds import Feeds
from agents.engine.kafka.log import KafkaLog
from agents.engine.kafka.restore import restore
from agents.engine.kafka.topics import all_topics
from agents.engine.pace import Pace
from config.clock import Clock
from config.settings import Settings
from streams.errors import BadState
from streams.records import Output, Place, Record
from tables.changelog import Changelog
from tables.store import Batch, Store

OnFailure = Callable[[BaseException], None]
_log: Final = structlog.get_logger("headrace")


class KafkaTransport(KafkaLog):
    """Implements `Transport`. State of an open partition lies in the store and, as its changes, in the changelog."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, pace: Pace, on_failure: OnFailure) -> None:
        """Nothing is connected before `start`; an error of a background task goes to `on_failure`."""
        super().__init__(settings, pace)
        self._store = store
        self._clock = clock
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []
        self._owner = f"{settings.app}-{uuid4().hex}"
        self._claims = Claims(settings, store, pace, self._owner)
        self._transactional: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Create what is missing, connect, and begin to listen."""
        await super().start()
        self._feeds = Feeds(self._settings, self._pace)
        await self._feeds.start()
        self._transactional = await start_producer(self._settings, all_topics(self._settings), self._owner)
        self._committer = Committer(self._settings, self._transactional, self._store, self._pace, self._feeds.wake)
        self._tasks = [self._watch(self._feeds.pump()), self._watch(self._committer.run())]

    def _watch(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def watched() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self._on_failure(error)
                raise

        return asyncio.create_task(watched())

    async def stop(self) -> None:
        """Disconnect; what is not committed is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._claims.stop()
        if self._transactional is not None:
            await self._transactional.stop()
            await self._feeds.stop()
        await super().stop()

    async def open(self, partition: int) -> None:
        """Fence the partition's former owner, restore what it committed, and check that the topics are the same."""
        self._compare_topics(partition)
        await self._claims.take(partition, partial(self._restore, partition))
        self._committer.admit(partition)
        await self._note_topics(partition)

    async def _restore(self, partition: int) -> int:
        offset = Changelog(self._store, partition).next_offset
        count = await restore(self._settings, self._store, partition, self._clock.now_ms())
        if count:
            _log.info("partition restored", partition=partition, offset=offset, records=count)
        self._compare_topics(partition)
        return count

    def _compare_topics(self, partition: int) -> None:
        """Positions mean nothing in another topic of the same name: stop, and say so.

        Asked before the restore, too: it must not mix another changelog's changes into this folder's state.
        """
        for name, known_id in Changelog(self._store, partition).topic_ids.items():
            if self._topic_ids.get(name, known_id) != known_id:
                raise BadState(
                    f"topic {name} is not the one that partition {partition} was built from (its id is "
                    f"{self._topic_ids[name]}, was {known_id}); restore it, or start anew with another HEADRACE_APP"
                )

    async def _note_topics(self, partition: int) -> None:
        changelog = Changelog(self._store, partition)
        if set(self._topic_ids) - set(changelog.topic_ids):
            batch = self.batch()
            changelog.stage_topic_ids(batch, self._topic_ids)
            await self._committer.commit(partition, batch, ())

    async def close(self, partition: int) -> None:
        """Keep what was handed in while the partition is ours, and let the next owner have it."""
        await self._watch(self._committer.release([partition]))
        self._committer.drop(partition)
        await self._claims.drop(partition)

    async def suspend(self) -> None:
        """Release every partition: whoever opens one from now on need not fence us."""
        await self._watch(self._committer.release())

    def abandon(self, partition: int) -> None:
        """See `Committer.drop`."""
        self._committer.drop(partition)

    def abandon_released(self) -> None:
        """Fail what waits for partitions that may be somebody else's by now."""
        for partition in self._committer.unclaimed() if self._tasks else ():  # else it never came to committing
            self._committer.drop(partition)

    async def reclaim(self) -> None:
        """Claim again what was released and is still open here, which fails if somebody else has had it since."""
        for partition in self._committer.unclaimed():
            await self._claims.renew(partition)
            self._committer.admit(partition)

    async def confirm(self, partition: int) -> None:
        """See `Committer.confirm`."""
        await self._committer.confirm(partition)

    def follow(self, positions: dict[Place, int]) -> None:
        """Read these places from these offsets on."""
        self._feeds.follow(positions)

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice that has arrived, and of our own commits only what the store holds, too."""
        place = topic, partition
        return self._feeds.read(place, offset, self._committer.unkept.get(place))

    def has_more(self, place: Place, offset: int) -> bool:
        """Whether records have arrived, or a hole behind the offset has been seen."""
        return self._feeds.has_more(place, offset)

    def appended_ms(self, topic: str, partition: int, offset: int) -> int | None:
        """The append time of the next record that has arrived."""
        return self._feeds.appended_ms((topic, partition), offset)

    def reached(self, topic: str, partition: int, offset: int) -> int:
        """Past transaction markers and aborted records."""
        return self._feeds.reached((topic, partition), offset)

    def end(self, topic: str, partition: int) -> int:
        """The last stable offset as last heard of."""
        return self._feeds.end((topic, partition))

    def listen(self) -> None:
        """From here on."""
        self._feeds.listen()

    async def wait(self, timeout_s: float) -> None:
        """Wait for an arrival."""
        await self._feeds.wait(timeout_s)

    def wake(self) -> None:
        """Let a waiting reader look again."""
        if self._tasks:  # else it never came to reading
            self._feeds.wake()

    def batch(self) -> Batch:
        """A batch that remembers its changes for the changelog."""
        return self._store.batch(recording=True)

    async def commit(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """With whatever else this process's agents hand in meanwhile, in one transaction."""
        await self._committer.commit(partition, batch, outputs)

    async def forward(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """Outputs at once and outside of transactions, the state with the next one."""
        await self.append(outputs)
        self._committer.later(partition, batch)

    async def sync(self, patience_s: float = 0.0) -> None:
        """Every commit is acknowledged by the brokers already."""

    async def trim(
        self, topic: str, partition: int, below_offset: int, before_ms: int, bytes_max: int | None = None
    ) -> int:
        """Retention is the cluster's."""
        return 0

    def size_bytes(self, topic: str, partition: int) -> int:
        """The cluster knows."""
        return 0
