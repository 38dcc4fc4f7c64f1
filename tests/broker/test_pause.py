"""A pause reaches every worker, whichever was asked: it holds before each attempt, wherever the user lies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from agents.definitions import FOLLOW_S
from agents.engine.kafka.topics import CHANGELOG, ensure_topics, topic_name
from streams.errors import BadSetting
from tests.broker.kafka import Broker
from tests.broker.workers import PARTITIONS, Site, Worker, arrivals, crew, opened, produce, purchases, settled

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


async def test_a_pause_reaches_the_worker_that_was_not_asked(broker: Broker, tmp_path: Path) -> None:
    """A moment after one worker is told to pause a campaign, none of them sends it; others go on."""
    site = Site(broker, tmp_path)
    await ensure_topics(site.settings("one"))
    async with crew() as workers:
        workers += [Worker(site, "one"), Worker(site, "two")]
        await opened(workers)
        await workers[0].ask("pause", campaign="welcome", paused=True)
        await asyncio.sleep(4 * FOLLOW_S)
        produce(site, [*arrivals(80), *purchases(400, 80, seed=5)])
        await settled(*workers)
        sends = [await worker.ask("sends") for worker in workers]
        for worker in workers:
            await worker.stop()

    assert [found["welcome"] for found in sends] == [{}, {}]
    assert all(sum(found["win_back"].values()) for found in sends)


async def test_a_changelog_that_forgets_is_refused(broker: Broker, tmp_path: Path) -> None:
    """A changelog topic made by hand without compaction would lose state after a week; no worker starts on it."""
    settings = Site(broker, tmp_path).settings("data")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    config = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
    await admin.create_topics([NewTopic(topic_name(settings, CHANGELOG), PARTITIONS, 1, topic_configs=config)])
    await admin.close()
    with pytest.raises(BadSetting, match=r"changelog: set cleanup.policy=compact"):
        await ensure_topics(settings)
