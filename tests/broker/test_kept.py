"""What a worker warns by is what the brokers have, not what the catalogue says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from agents import retention
from streams.times import DAY_MS
from tests.broker.kafka import Broker
from tests.broker.workers import WAIT_S_MAX, Site, node_on


async def test_retention_is_what_the_brokers_have(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue's week at first; an hour, once somebody has changed the topic, without a restart."""
    monkeypatch.setattr(retention, "LOOK_S", 0.2)
    site = Site(broker, tmp_path)
    async with node_on(site) as node:
        windows = node.gauges.lag.windows

        async def until(topic: str, kept_ms: int | None) -> None:
            async with asyncio.timeout(WAIT_S_MAX):
                while True:
                    if {window.retention_ms for key, window in windows.items() if key[1] == topic} == {kept_ms}:
                        return
                    await asyncio.sleep(0.05)

        await until("events", 7 * DAY_MS)
        change = ConfigResource(
            ResourceType.TOPIC,
            site.topic("events"),
            incremental_configs=[ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)],
        )
        admin = AdminClient({"bootstrap.servers": broker.address})
        for done in admin.incremental_alter_configs([change]).values():
            await asyncio.to_thread(done.result, 30)
        await until("events", 3_600_000)
        await until("mailbox", 7 * DAY_MS)
