"""Membership: Faust's consumer as a member of the group, which owns partitions and fetches nothing."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as stock
from faust.types import TP

from agents.engine.driver import Served, SilentProducer, SliceConsumer, engine_of
from agents.engine.kafka.clients import addresses
from agents.engine.kafka.security import security
from agents.engine.kafka.topics import topic_name
from config.settings import Settings
from streams.records import Place

HEARTBEAT_MS: Final = 1_000
FETCH_BYTES: Final = 1_024
PUBLISH_S: Final = 1.0
_log: Final = structlog.get_logger("headrace")


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
            **security(settings),
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

    async def publish(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets to the group; False when it did not take all of them, which costs lag tools their view."""
        return bool(await self.call_thread(self._publish, offsets))

    async def _publish(self, offsets: Mapping[TP, int]) -> bool:
        group = self._ensure_consumer()
        assigned = group.assignment()
        ours = {tp: OffsetAndMetadata(offset, "") for tp, offset in offsets.items() if tp in assigned}
        try:
            if ours:  # aiokafka takes no empty commit
                await group.commit(ours)
        except (KafkaError, IllegalStateError) as error:
            _log.info("positions were not published", error=type(error).__name__)
            return False
        return len(ours) == len(offsets)


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


class Driver(stock.Transport):
    """What Faust finds under the scheme `kafka`."""

    Consumer = MemberConsumer
    Producer = SilentProducer
    driver_version = "headrace"


async def publish_positions(engine: Served) -> None:
    """Tell the group how far the agents are, once a second until it knows, for its lag tools.

    Our own positions lie in the state; nothing of ours reads these.
    """
    published: dict[Place, int] = {}
    while True:
        await asyncio.sleep(PUBLISH_S)
        watermarks = engine.slices.watermarks
        news = {place: offset for place, offset in watermarks.items() if published.get(place) != offset}
        if news and not engine.slices.paused:
            named = {_tp(engine.settings, place): offset for place, offset in news.items()}
            if await engine.app.consumer._thread.publish(named):
                published = watermarks


def _tp(settings: Settings, place: Place) -> TopicPartition:
    return TopicPartition(topic_name(settings, place[0]), place[1])
