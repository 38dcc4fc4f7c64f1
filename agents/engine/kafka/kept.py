"""How long the brokers keep each topic, as they are configured now."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from agents.engine.kafka.clients import addresses
from agents.engine.kafka.security import security
from agents.engine.kafka.topics import topic_name
from config.settings import Settings
from streams import topics
from streams.errors import OutsideFailing

_NAME, _VALUE = 0, 1
_FOR_EVER: Final = -1


async def read_kept_ms(settings: Settings) -> dict[str, int | None]:
    """Milliseconds for which each topic of the catalogue is kept, by its short name; None for ever.

    Raises:
        OutsideFailing: the brokers do not say, such as where our user may not read configurations.
    """
    names = {topic_name(settings, name): name for name in topics.BY_NAME}
    kept: dict[str, int | None] = {}
    async with _admin(settings) as admin:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
        for answer in await admin.describe_configs(resources):
            for code, message, _, name, entries in answer.resources:
                values = {entry[_NAME]: entry[_VALUE] for entry in entries}
                if code or "retention.ms" not in values:
                    raise OutsideFailing(f"topic {name}: its retention is not told (error {code}: {message})")
                age_ms = int(values["retention.ms"])
                is_deleted = "delete" in values.get("cleanup.policy", "delete")
                kept[names[name]] = age_ms if is_deleted and age_ms != _FOR_EVER else None
    return kept


@asynccontextmanager
async def _admin(settings: Settings) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses(settings), client_id=settings.app, **security(settings))
    try:
        await admin.start()
        yield admin
    finally:
        await admin.close()
