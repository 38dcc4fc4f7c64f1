"""Positions told to the group: for lag tools alone, so what the group refuses is told again and harms nobody."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.engine.driver import Served
from agents.engine.kafka import membership
from config.settings import load_settings
from tests.broker.kafka import Broker, create_topics

PLACE = ("events", 0)


async def test_positions_that_the_group_refused_are_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal, as in a rebalance, leaves the position to be told; once taken it is not told again."""
    monkeypatch.setattr(membership, "PUBLISH_S", 0.001)
    answers, told = [False, False, True], []

    async def publish(offsets: Mapping[Any, int]) -> bool:
        told.append(dict(offsets))
        return answers[len(told) - 1]

    thread = SimpleNamespace(publish=publish)
    app = SimpleNamespace(consumer=SimpleNamespace(_thread=thread))
    slices = SimpleNamespace(watermarks={PLACE: 7}, paused=False)
    engine = SimpleNamespace(app=app, slices=slices, settings=load_settings({"HEADRACE_APP": "a"}))
    publishing = asyncio.create_task(membership.publish_positions(cast("Served", engine)))
    await asyncio.sleep(0.1)

    assert not publishing.done()
    publishing.cancel()
    assert told == 3 * [{TopicPartition("a.events", 0): 7}]


@pytest.mark.broker
async def test_a_member_publishes_only_what_it_is_assigned(broker: Broker) -> None:
    """Positions of partitions that have just gone to others are left out, also when nothing else is left."""
    name = f"published-{uuid.uuid4().hex}"
    create_topics(broker.address, {name: 2})
    group = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id=name, enable_auto_commit=False)
    await group.start()
    thread = cast("membership.MemberThread", SimpleNamespace(_ensure_consumer=lambda: group))
    mine, other = TopicPartition(name, 0), TopicPartition(name, 1)
    try:
        assert not await membership.MemberThread._publish(thread, {mine: 1})
        group.assign([mine])
        assert not await membership.MemberThread._publish(thread, {mine: 2, other: 2})
        assert await membership.MemberThread._publish(thread, {mine: 3})
        assert [await group.committed(tp) for tp in (mine, other)] == [3, None]
    finally:
        await group.stop()
