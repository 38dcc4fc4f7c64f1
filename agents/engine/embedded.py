"""The embedded transport: log, state and outputs in one RocksDB, committed in one batch."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from config.clock import Clock
from streams.ids import topic_id
from streams.records import Output, Place, Record
from tables.log import Log
from tables.store import Batch, Store


class EmbeddedTransport:
    """Implements `Transport` for one process, with nothing to install."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        app: str,
        partitions: int,
        fail: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """Serve the log that lies in the store; `fail` is told when a write failed, whoever asked for it."""
        self.partitions = partitions
        self._store = store
        self._clock = clock
        self._app = app
        self._fail = fail
        self._log = Log(store)
        self._syncing = asyncio.Lock()
        self._begun = self._synced = 0

    async def start(self) -> None:
        """Nothing to connect to: a topic of the embedded log exists when it is written."""

    async def stop(self) -> None:
        """Nothing to disconnect from."""

    async def open(self, partition: int) -> None:
        """Nothing to fence: the folder's lock keeps everyone else out."""

    async def close(self, partition: int) -> None:
        """Nothing to give up."""

    async def suspend(self) -> None:
        """Nothing waits: a commit is one write."""

    def abandon(self, partition: int) -> None:
        """Nobody else can have it."""

    def abandon_released(self) -> None:
        """Nothing was released."""

    async def reclaim(self) -> None:
        """Nothing was held back."""

    async def confirm(self, partition: int) -> None:
        """Always ours, while the folder is locked."""

    def topic_id(self, topic: str) -> str:
        """Log and state live and die together, so a name is identity enough."""
        return topic_id(self._app, topic)

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""
        return self._log.end(topic, partition)

    def follow(self, positions: dict[Place, int]) -> None:
        """Every place can be read at any offset."""

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice."""
        return self._log.read(topic, partition, offset)

    def has_more(self, place: Place, offset: int) -> bool:
        """Whether the offset is below the end."""
        return offset < self._log.end(*place)

    def appended_ms(self, topic: str, partition: int, offset: int) -> int | None:
        """The next record's append time."""
        records = self._log.read(topic, partition, offset, 1)
        return records[0].append_ms if records else None

    def reached(self, topic: str, partition: int, offset: int) -> int:
        """The embedded log has no holes."""
        return offset

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The lowest offsets still kept."""
        return {place: self._log.start(*place) for place in places}

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offsets that the next records will get."""
        return {place: self._log.end(*place) for place in places}

    async def look(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        """Records from an offset on; none below what retention has left."""
        start = max(offset, self._log.start(topic, partition))
        return self._log.read(topic, partition, start, records_max)

    def listen(self) -> None:
        """From here on."""
        self._log.listen()

    async def wait(self, timeout_s: float) -> None:
        """Wait for an append."""
        await self._log.wait(timeout_s)

    def wake(self) -> None:
        """Let a waiting reader look again."""
        self._log.wake()

    def batch(self) -> Batch:
        """An empty batch."""
        return self._store.batch()

    async def commit(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """One WriteBatch; no await in between, so nobody sees half of it."""
        if outputs:
            self._log.stage(batch, outputs, self._clock.now_ms())
        try:
            self._store.write(batch)
        except BaseException as error:  # what was staged is in memory alone: nobody may go on from here
            self._fail(error)
            raise
        if outputs:
            self._log.publish()

    async def forward(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """The same: one WriteBatch is as cheap."""
        await self.commit(partition, batch, outputs)

    async def append(self, outputs: Sequence[Output]) -> None:
        """The same without state."""
        await self.commit(0, self.batch(), outputs)

    async def sync(self, patience_s: float = 0.0) -> None:
        """One fsync of the write-ahead log, in a thread, for all who ask while the one before is under way.

        Each on its own, the writers of eight partitions would stand in line for the disk, one behind the other.
        Whoever has patience lets the less patient go first, who may sync for both.
        """
        needed = self._begun + 1  # one under way may have begun before what the caller wrote
        if patience_s:
            await asyncio.sleep(patience_s)
        async with self._syncing:
            if self._synced >= needed:
                return
            self._begun += 1
            number = self._begun
            await asyncio.to_thread(self._store.sync)
            self._synced = number

    def size_bytes(self, topic: str, partition: int) -> int:
        """What is kept, as appended."""
        return self._log.size_bytes(topic, partition)

    async def trim(
        self, topic: str, partition: int, below_offset: int, before_ms: int, bytes_max: int | None = None
    ) -> int:
        """Drop what every reader has passed and retention no longer keeps; returns chunks dropped."""
        batch = self.batch()
        dropped = self._log.trim(batch, topic, partition, below_offset, before_ms, bytes_max)
        if dropped:
            self._store.write(batch)
        return dropped
