"""Faust's side of the engine: what every driver of ours shares, and the driver of the embedded log.

Faust calls a transport's consumer and producer through the interfaces of `faust.transport`. One message
carries one slice, so Faust's per-message cost is paid per slice. Acks and offset commits do nothing: the
position of a partition lies in its own state (see `Slices`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol, cast

import faust
from faust.tables.manager import TableManager
from faust.transport import base, consumer, producer
from faust.transport.drivers import TRANSPORTS
from faust.types import TP, ConsumerMessage, Message
from faust.types.tuples import RecordMetadata
from mode import ServiceT

from agents.engine.pace import Pace
from agents.engine.slices import Slice, Slices
from agents.engine.transport import Transport
from config.settings import Settings
from streams.errors import BadState
from streams.records import Place

SCHEME: Final = "embedded"
KAFKA_SCHEME: Final = "kafka"
IDLE_WAIT_S: Final = 0.25
GENERATION: Final = 1
_LOG_APPEND_TIME: Final = 1


class Served(Protocol):
    """What the driver asks of the engine that the app belongs to."""

    app: Any
    settings: Settings
    pace: Pace
    slices: Slices
    transport: Transport

    def hold(self, partitions: set[int]) -> None:
        """Own exactly these partitions."""

    async def release(self) -> None:
        """Partitions may go to others."""

    def place_of(self, tp: TP) -> Place:
        """Our names for one of Faust's topic partitions."""


def engine_of(app: Any) -> Served:
    """The engine that a Faust app belongs to."""
    engine: Served = app.headrace
    return engine


class SliceSchema(faust.Schema[Any, Any]):
    """Hands a slice through as the event's value: nothing is decoded per message."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        """The function that Faust calls for each message, that is for each slice."""

        async def decode(message: Message, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, {}, message)

        return decode


class SliceConsumer(consumer.Consumer):
    """Reads slices instead of messages, from the positions of our own state; how it is assigned is up to others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listed: tuple[set[TP], list[tuple[TP, Place]]] = (set(), [])

    @property
    def _slices(self) -> Slices:
        return engine_of(self.app).slices

    @property
    def _log(self) -> Transport:
        return engine_of(self.app).transport

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        """Replaces the per-message loop: one callback per slice, round robin over the partitions."""
        pace = engine_of(self.app).pace
        while not (self.should_stop or fetcher.should_stop):
            if not self.flow_active:
                await self.sleep(0.01)
                continue
            taken, slices = 0, self._slices
            self._log.listen()  # a scan may rest, and what arrives meanwhile at a place behind it must not wait
            for tp, place in self._places():
                if pace.spent:
                    await pace.rest()
                piece = slices.take(place)
                if piece is not None:
                    taken += 1
                    await self.callback(_message(tp, piece, self.app.consumer_generation_id))
            if not taken:
                await self._log.wait(IDLE_WAIT_S)

    def _places(self) -> list[tuple[TP, Place]]:
        """The active partitions in order, with our names for them; kept until they change."""
        active = self._get_active_partitions()
        if active != self._listed[0]:
            self._listed = (set(active), [(tp, engine_of(self.app).place_of(tp)) for tp in sorted(active)])
        return self._listed[1]

    def ack(self, message: Message) -> bool:
        """Nothing: a slice is finished when its agent has committed it."""
        return True

    async def wait_empty(self) -> None:
        """Nothing to wait for: the agents' lanes are drained by the engine."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: FBT001, FBT002
        """Nothing: positions are committed with the state they belong to."""
        return True

    async def perform_seek(self) -> None:
        """Nothing: the engine has set the positions from our own state."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """The positions as they are."""
        return {tp: self._slices.watermark(engine_of(self.app).place_of(tp)) for tp in self.assignment()}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Nothing: see `perform_seek`."""

    async def _seek(self, partition: TP, offset: int) -> None:
        raise BadState(f"{partition}: nobody may seek to {offset}; positions come from our own state")

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109
        raise BadState("records are read as slices")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise BadState("records are read as slices")

    async def verify_all_partitions_active(self) -> None:
        """Nothing: progress is watched by the engine, and Faust's way takes turns of the loop per partition."""

    def verify_recovery_event_path(self, now: float, tp: TP) -> None:
        """Nothing: there is no changelog to recover from."""


class EmbeddedConsumer(SliceConsumer):
    """The one member of its group: it is assigned every partition, once, and never rebalances."""

    consumer_stopped_errors: ClassVar[tuple[type[BaseException], ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._assigned: set[TP] = set()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Take all partitions; in the background, since Faust waits for `subscribe` before it can assign."""
        self._assigned = {TP(topic, at) for topic in topics for at in range(self._log.partitions)}
        self.add_future(self._assign(set(self._assigned)))

    async def _assign(self, assigned: set[TP]) -> None:
        self.app.on_rebalance_start()
        await self.on_partitions_revoked(set())
        self.app.consumer_generation_id = GENERATION
        await self.on_partitions_assigned(assigned, GENERATION)

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Nothing: a topic of the embedded log exists when it is written."""

    def assignment(self) -> set[TP]:
        """All partitions."""
        return set(self._assigned)

    def topic_partitions(self, topic: str) -> int | None:
        """The one partition count."""
        return self._log.partitions

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def position(self, tp: TP) -> int | None:
        """The watermark."""
        return self._slices.watermark(engine_of(self.app).place_of(tp))

    def highwater(self, tp: TP) -> int:
        """The end of the partition."""
        return self._log.end(*engine_of(self.app).place_of(tp))

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The ends of partitions."""
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """The starts of partitions."""
        starts = await self._log.starts(map(engine_of(self.app).place_of, partitions))
        return {tp: starts[engine_of(self.app).place_of(tp)] for tp in partitions}

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        """Only our own agents produce, and they name the partition."""
        return partition

    def close(self) -> None:
        """Nothing to close."""


def _message(tp: TP, piece: Slice, generation: int) -> ConsumerMessage:
    last = piece.records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.append_ms / 1000,
        _LOG_APPEND_TIME,
        {},
        None,
        cast("bytes", piece),  # Faust hands a value through untouched; SliceSchema knows what it is
        None,
        tp=tp,
        generation_id=generation,  # Faust drops what an earlier generation fetched
    )


class SilentProducer(producer.Producer):
    """Faust itself produces nothing here; what agents produce goes through their transport's commit."""

    async def send(self, topic: str, *args: Any, **kwargs: Any) -> Any:
        """Refused: a send outside a commit would be a hole in the guarantee."""
        raise BadState(f"{topic}: produce through the transport's commit, not through Faust's producer")

    async def send_and_wait(self, topic: str, *args: Any, **kwargs: Any) -> RecordMetadata:
        """Refused, likewise."""
        raise BadState(f"{topic}: produce through the transport's commit, not through Faust's producer")

    async def create_topic(self, topic: str, partitions: int, replication: int, **kwargs: Any) -> None:
        """Nothing: topics are the transport's affair."""

    async def flush(self) -> None:
        """Nothing is buffered."""

    def key_partition(self, topic: str, key: bytes) -> TP:
        """Refused: only agents name partitions."""
        raise BadState(f"{topic}: only agents name partitions")

    def supports_headers(self) -> bool:
        """Headers are kept."""
        return True


class Driver(base.Transport):
    """What Faust finds under the scheme `embedded`."""

    Consumer = EmbeddedConsumer
    Producer = SilentProducer
    driver_version = "headrace"
    default_port = 0


class PromptTableManager(TableManager):
    """Faust's recovery gives way to ours: partitions are opened by the engine.

    Faust also waits a second for tables to be declared; ours are declared before the app starts.
    """

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Tell the engine what this process owns now; slices flow when it has opened it."""
        engine_of(self.app).hold({tp.partition for tp in assigned})
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    async def on_start(self) -> None:
        """Start recovery at once."""
        await self._update_channels()
        await self.recovery.start()


def register_driver() -> None:
    """Let `embedded://` and `kafka://` name our drivers."""
    TRANSPORTS.aliases[SCHEME] = "agents.engine.driver:Driver"
    TRANSPORTS.aliases[KAFKA_SCHEME] = "agents.engine.kafka.membership:Driver"
