"""The Kafka transport: what its parts do, behind the interface that the embedded log has too."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from agents.engine.kafka.clients import start_producer
from agents.engine.kafka.committer import Committer
from agents.engine.kafka.feeds import Feeds
from agents.engine.kafka.log import KafkaLog
from agents.engine.kafka.restore import restore
from agents.engine.kafka.rhythm import Rhythm
from agents.engine.kafka.topics import all_topics
from agents.engine.pace import Pace
from config.clock import Clock
from config.settings import Settings
from streams.errors import BadState
from streams.records import Output, Place, Record
from tables.changelog import Changelog
from tables.store import Batch, Store

OnFailure = Callable[[BaseException], None]


class KafkaTransport(KafkaLog):
    """Implements `Transport`. State of an open partition lies in the store and, as its changes, in the changelog."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, pace: Pace, on_failure: OnFailure) -> None:
        """Nothing is connected before `start`; an error of a background task goes to `on_failure`."""
        super().__init__(settings, pace)
        self._store = store
        self._clock = clock
        self._on_failure = on_failure
        self._rhythm = Rhythm()
        self._committers: dict[int, Committer] = {}
        self._producers: dict[int, AIOKafkaProducer] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create what is missing, connect, and begin to listen."""
        await super().start()
        self._feeds = Feeds(self._settings)
        await self._feeds.start()
        self._pump = self._watch(self._feeds.pump())

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
        """Disconnect; a partition that could not be opened leaves its producer to us."""
        for partition in sorted(self._producers):
            await self._drop(partition)
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            await self._feeds.stop()
        await super().stop()

    async def open(self, partition: int) -> None:
        """Fence the partition's former owner, restore what it committed, and check that the topics are the same."""
        name = f"{self._settings.app}-{partition}"
        producer = await start_producer(self._settings, all_topics(self._settings), name)
        self._producers[partition] = producer
        self._compare_topics(partition)
        await restore(self._settings, self._store, partition, self._clock.now_ms())
        self._compare_topics(partition)
        committer = self._committers[partition] = Committer(
            self._settings, partition, producer, self._store, self._pace, self._rhythm
        )
        self._tasks[partition] = self._watch(committer.run())
        await self._note_topics(partition, committer)

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

    async def _note_topics(self, partition: int, committer: Committer) -> None:
        changelog = Changelog(self._store, partition)
        if set(self._topic_ids) - set(changelog.topic_ids):
            batch = self.batch()
            changelog.stage_topic_ids(batch, self._topic_ids)
            await committer.commit(batch, ())

    async def close(self, partition: int) -> None:
        """Keep what was handed in, and let the next owner have the partition."""
        committer = self._committers.get(partition)
        if committer is not None:
            await committer.drained()
        await self._drop(partition)

    async def _drop(self, partition: int) -> None:
        """Stop committing; what is not committed is lost."""
        self._committers.pop(partition, None)
        task = self._tasks.pop(partition, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._rhythm.forget(partition)
        producer = self._producers.pop(partition, None)
        if producer is not None:
            await producer.stop()

    async def suspend(self) -> None:
        """All partitions at once, since each waits for a round trip."""
        await asyncio.gather(*(committer.suspend() for committer in self._committers.values()))

    def abandon(self, partition: int) -> None:
        """See `Committer.abandon`."""
        if partition in self._committers:
            self._committers[partition].abandon()

    def resume(self) -> None:
        """Let commits go on."""
        for committer in self._committers.values():
            committer.resume()

    async def confirm(self, partition: int) -> None:
        """See `Committer.confirm`."""
        await self._committers[partition].confirm()

    def follow(self, positions: dict[Place, int]) -> None:
        """Read these places from these offsets on."""
        self._feeds.follow(positions)

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice that has arrived."""
        return self._feeds.read((topic, partition), offset)

    def reached(self, topic: str, partition: int, offset: int) -> int:
        """Past transaction markers and aborted records."""
        return self._feeds.reached((topic, partition), offset)

    def end(self, topic: str, partition: int) -> int:
        """The last stable offset as last heard of."""
        return self._feeds.end((topic, partition))

    async def wait(self, timeout_s: float) -> None:
        """Wait for an arrival."""
        await self._feeds.wait(timeout_s)

    def wake(self) -> None:
        """Let a waiting reader look again."""
        if self._pump is not None:  # else it never came to reading
            self._feeds.wake()

    def batch(self) -> Batch:
        """A batch that remembers its changes for the changelog."""
        return self._store.batch(recording=True)

    async def commit(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """With whatever else the partition's agents hand in meanwhile, in one transaction."""
        await self._committers[partition].commit(batch, outputs)

    async def forward(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """Outputs at once and outside of transactions, the state with the next one."""
        await self.append(outputs)
        self._committers[partition].later(batch)

    async def sync(self) -> None:
        """Every commit is acknowledged by the brokers already."""

    async def trim(self, topic: str, partition: int, below_offset: int, before_ms: int) -> int:
        """Retention is the cluster's."""
        return 0
