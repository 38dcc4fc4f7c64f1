"""Membership: Faust's consumer as a member of the group, which owns partitions and fetches nothing."""

from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from agents.engine.driver import SilentProducer, SliceConsumer, engine_of
from agents.engine.kafka.clients import addresses

HEARTBEAT_MS = 1_000
FETCH_BYTES = 1_024


class Listener(stock.ConsumerRebalanceListener):
    """Stops the group's own reader from fetching what it is assigned: slices come from `Feeds`."""

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Pause, then go on as Faust does."""
        self._thread._ensure_consumer().pause(*assigned)
        await super().on_partitions_assigned(assigned)


class MemberThread(stock.AIOKafkaConsumerThread):
    """Faust's consumer thread with our assignor and timeouts; heartbeats go on while the loop works."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        settings = engine_of(self.app).settings
        session_ms = int(settings.session_s * 1000)
        self._assignor = self.app.assignor  # the stock choice splits a partition's topics over workers
        return AIOKafkaConsumer(
            bootstrap_servers=addresses(settings),
            client_id=settings.app,
            group_id=settings.app,
            group_instance_id=settings.member or None,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=session_ms,
            heartbeat_interval_ms=min(HEARTBEAT_MS, session_ms // 3),
            max_poll_interval_ms=2**31 - 1,  # it is never polled; progress is watched by the engine
            max_partition_fetch_bytes=FETCH_BYTES,
        )


class MemberConsumer(SliceConsumer, stock.Consumer):
    """Our slices over Faust's thread."""

    RebalanceListener = Listener
    _thread: MemberThread

    def _new_consumer_thread(self) -> MemberThread:
        return MemberThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what is in flight before somebody else may own it."""
        await engine_of(self.app).release()
        await super().on_partitions_revoked(revoked)

    async def publish(self, offsets: Mapping[TP, int]) -> None:
        """Tell the group how far we are, for its lag tools; our own state does not read it."""
        await self._thread.commit(offsets)


class Driver(stock.Transport):
    """What Faust finds under the scheme `kafka`."""

    Consumer = MemberConsumer
    Producer = SilentProducer
    driver_version = "headrace"
