"""Readers ask again, with new metadata, for whatever a broker may give later; the rest ends the process at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError, for_code

from agents.engine.kafka import fetches
from agents.engine.kafka.fetches import Reader
from config.settings import Settings

TPS = [TopicPartition("events", at) for at in range(3)]
PASSING = (3, 5, 6, 7, 56)
"""UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, KAFKA_STORAGE_ERROR."""

FINAL = (1, 2, 29, 74)
"""OFFSET_OUT_OF_RANGE, CORRUPT_MESSAGE, TOPIC_AUTHORIZATION_FAILED, FENCED_LEADER_EPOCH, which nobody sends unasked."""


class Client:
    """Answers each fetch with an error code for the first partition, or raises; counts looks for metadata."""

    def __init__(self, code: int = 0, error: KafkaError | None = None) -> None:
        self.code = code
        self.error = error
        self.updates = 0
        self.first: list[tuple[int, int]] = []

    async def send(self, leader: int, request: Any) -> Any:  # noqa: ANN401 - aiokafka has no types
        """What a broker answers."""
        if self.error is not None:
            raise self.error
        places = [(topic, at) for topic, partitions in request._topics for at, *_ in partitions]
        self.first.append((leader, places[0][1]))
        rows: list[Any] = [(at, self.code if at == 0 else 0, 9, 9, [], b"") for _, at in places]
        return SimpleNamespace(topics=[("events", rows)])

    def force_metadata_update(self) -> asyncio.Future[bool]:
        """Count."""
        self.updates += 1
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        done.set_result(True)
        return done


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetches, "RETRY_S", 0.0)


def reader_on(client: Client) -> Reader:
    """A reader that was started on this client."""
    reader = Reader(Settings())
    reader._client = client
    return reader


def positions(count: int = len(TPS)) -> dict[TopicPartition, int]:
    """The first partitions, from their beginnings."""
    return dict.fromkeys(TPS[:count], 0)


@pytest.mark.parametrize("code", PASSING)
async def test_what_passes_is_asked_again_with_new_metadata(code: int) -> None:
    """A partition's passing error costs the others nothing, and the next request knows who leads now."""
    client = Client(code)
    found = await reader_on(client).fetch(1, positions(), 1_000, 1_000)

    assert {each.tp for each in found} == set(TPS[1:])
    assert client.updates == 1


@pytest.mark.parametrize("code", FINAL)
async def test_what_stays_is_raised(code: int) -> None:
    """An error that asking again would not change is not asked again for ever: the process ends, and says which."""
    with pytest.raises(for_code(code), match=r"events\[0\] at offset 0"):
        await reader_on(Client(code)).fetch(1, positions(), 1_000, 1_000)


@pytest.mark.parametrize("error", [RequestTimedOutError(), NodeNotReadyError(), KafkaConnectionError()])
async def test_a_broker_that_gives_no_answer_is_asked_again(error: KafkaError) -> None:
    """Silence up to the request's limit, no connection, or one that breaks in an answer: nothing, and new metadata."""
    client = Client(error=error)

    assert await reader_on(client).fetch(1, positions(), 1_000, 1_000) == []
    assert client.updates == 1


async def test_each_partition_comes_first_at_each_broker() -> None:
    """Asked in turn, two brokers both begin with each partition: what is larger than asked for comes only then."""
    client = Client()
    reader = reader_on(client)
    for _ in range(4):
        for leader in (1, 2):
            await reader.fetch(leader, positions(2), 1_000, 1_000)

    assert set(client.first) == {(1, 0), (1, 1), (2, 0), (2, 1)}
