"""The embedded transport: log, state and outputs in one RocksDB, committed in one batch."""

import asyncio
from collections.abc import Sequence

from config.clock import Clock
from streams.ids import topic_id
from streams.records import Output, Record
from tables.log import Log
from tables.store import Batch, Store


class EmbeddedTransport:
    """Implements `Transport` for one process, with nothing to install."""

    def __init__(self, store: Store, clock: Clock, app: str, partitions: int) -> None:
        """Serve the log that lies in the store."""
        self.partitions = partitions
        self._store = store
        self._clock = clock
        self._app = app
        self._log = Log(store)

    def topic_id(self, topic: str) -> str:
        """Log and state live and die together, so a name is identity enough."""
        return topic_id(self._app, topic)

    def start(self, topic: str, partition: int) -> int:
        """The lowest offset still kept."""
        return self._log.start(topic, partition)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        return self._log.end(topic, partition)

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice."""
        return self._log.read(topic, partition, offset)

    async def wait(self, timeout_s: float) -> None:
        """Wait for an append."""
        await self._log.wait(timeout_s)

    def wake(self) -> None:
        """Let a waiting reader look again."""
        self._log.wake()

    def batch(self) -> Batch:
        """An empty batch."""
        return self._store.batch()

    async def commit(self, batch: Batch, outputs: Sequence[Output]) -> None:
        """One WriteBatch; no await in between, so nobody sees half of it."""
        if outputs:
            self._log.stage(batch, outputs, self._clock.now_ms())
        self._store.write(batch)
        if outputs:
            self._log.publish()

    async def append(self, outputs: Sequence[Output]) -> None:
        """The same without state."""
        await self.commit(self.batch(), outputs)

    async def sync(self) -> None:
        """One fsync of the write-ahead log, in a thread."""
        await asyncio.to_thread(self._store.sync)

    async def trim(self, topic: str, partition: int, below_offset: int, before_ms: int) -> int:
        """Drop what every reader has passed and retention no longer keeps; returns chunks dropped."""
        batch = self.batch()
        dropped = self._log.trim(batch, topic, partition, below_offset, before_ms)
        if dropped:
            self._store.write(batch)
        return dropped
