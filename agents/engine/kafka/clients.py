"""aiokafka's clients as Headrace sets them up; every number that differs from a default has its reason here."""

from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, conn
from aiokafka.client import AIOKafkaClient
from aiokafka.producer import sender

from agents.engine.kafka.security import security
from config.settings import Settings

RECORD_BYTES_MAX: Final = 6 * 1024 * 1024
"""What a topic takes: a record of the stated 4 MiB, its letter, and the headers of a dead letter."""

BATCH_BYTES_MAX: Final = RECORD_BYTES_MAX - 64 * 1024
REQUEST_BYTES_MAX: Final = 2 * RECORD_BYTES_MAX
REQUEST_S_MAX: Final = 20.0
TRANSACTION_S_MAX: Final = 10.0
FETCH_WAIT_MS: Final = 25
FETCH_PARTITION_BYTES: Final = 512 * 1024
CONCURRENT_TRANSACTIONS_WAIT_S: Final = 0.002
READER_BYTES: Final = 4 * 1024 * 1024

# A broker answers a commit before its markers are written and refuses the next transaction meanwhile;
# aiokafka then sleeps this long. Its own 20 ms would be most of a slice's time (docs/decisions/0002).
sender.BACKOFF_OVERRIDE = CONCURRENT_TRANSACTIONS_WAIT_S

# A connection stops reading at twice this and goes on a turn of the loop later; its own 64 KiB cut every answer up.
conn.READER_LIMIT = READER_BYTES


def addresses(settings: Settings) -> str:
    """The bootstrap servers of `kafka://host:port,…`."""
    return settings.broker.partition("://")[2]


def new_reader(settings: Settings, isolation: str) -> AIOKafkaConsumer:
    """A reader outside of any group, not started; `isolation` is read_committed or read_uncommitted."""
    return AIOKafkaConsumer(
        bootstrap_servers=addresses(settings),
        **security(settings),
        client_id=settings.app,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=isolation,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_PARTITION_BYTES,
        request_timeout_ms=int(REQUEST_S_MAX * 1000),
    )


def new_client(settings: Settings) -> AIOKafkaClient:
    """A client for requests of our own, not connected; makes one only within a running loop."""
    return AIOKafkaClient(
        bootstrap_servers=addresses(settings),
        **security(settings),
        client_id=settings.app,
        request_timeout_ms=int(REQUEST_S_MAX * 1000),
    )


async def start_producer(settings: Settings, topics: Iterable[str], transactional_id: str = "") -> AIOKafkaProducer:
    """A started idempotent producer; with an id it owns that id from now on and fences whoever had it."""
    own: dict[str, Any] = {}
    if transactional_id:
        own = {"transactional_id": transactional_id, "transaction_timeout_ms": int(TRANSACTION_S_MAX * 1000)}
    producer = AIOKafkaProducer(
        bootstrap_servers=addresses(settings),
        **security(settings),
        client_id=settings.app,
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES_MAX,
        max_request_size=REQUEST_BYTES_MAX,
        request_timeout_ms=int(REQUEST_S_MAX * 1000),
        **own,
    )
    await producer.start()
    # Otherwise the first topic that it does not know makes aiokafka forget the leaders of all others.
    await producer.client.set_topics(set(topics))
    return producer
