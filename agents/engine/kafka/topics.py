"""The topics of an app on a cluster: created before the first worker reads, checked when they exist."""

import asyncio
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError

from agents.engine.kafka.clients import RECORD_BYTES_MAX, addresses
from agents.engine.kafka.security import security
from agents.engine.kafka.topic_ids import read_topic_ids
from config.settings import Settings
from streams import topics
from streams.errors import BadSetting, OutsideFailing

CHANGELOG: Final = "changelog"
REPLICATION_WANTED: Final = 3
DELETE_RETENTION_MS: Final = 86_400_000
TOPICS_S_MAX: Final = 10.0
TOPICS_LOOK_S: Final = 0.1
_TOPIC_ALREADY_EXISTS: Final = 36
_NAME, _VALUE = 0, 1


def topic_name(settings: Settings, topic: str) -> str:
    """The full name of one of our topics."""
    return f"{settings.app}.{topic}"


def all_topics(settings: Settings) -> dict[str, dict[str, str]]:
    """Every topic of the app by its full name, with its configuration."""
    found = {topic_name(settings, topic.name): _config(topic) for topic in topics.CATALOGUE}
    found[topic_name(settings, CHANGELOG)] = {
        "cleanup.policy": "compact",
        "delete.retention.ms": str(DELETE_RETENTION_MS),
    }
    common = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(RECORD_BYTES_MAX)}
    return {name: {**common, **config} for name, config in found.items()}


def _config(topic: topics.Topic) -> dict[str, str]:
    if topic.compacted:
        return {"cleanup.policy": "compact", "delete.retention.ms": str(DELETE_RETENTION_MS)}
    retention_ms = -1 if topic.retention_s is None else topic.retention_s * 1000
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


async def ensure_topics(settings: Settings) -> dict[str, str]:
    """Create what is missing, check what is there; returns each topic's id.

    Raises:
        BadSetting: a topic has another number of partitions, or keeps its producers' timestamps.
        OutsideFailing: the broker refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=addresses(settings), client_id=settings.app, **security(settings))
    try:
        await admin.start()
        wanted = all_topics(settings)
        existing = set(await admin.list_topics())
        await _create(admin, settings, {name: config for name, config in wanted.items() if name not in existing})
        await _check(admin, settings, sorted(existing.intersection(wanted)))
        return await _topic_ids(admin, sorted(wanted))
    except KafkaConnectionError as error:
        raise OutsideFailing(
            f"HEADRACE_BROKER={settings.broker}: {error}; the reason stands above. Is it running, does HEADRACE_KAFKA_"
            f"SECURITY={settings.kafka_security} suit its listener, and are user, password and certificates right?"
        ) from error
    finally:
        await admin.close()


async def _topic_ids(admin: Any, names: list[str]) -> dict[str, str]:
    """The id of each topic; a broker may know one that was just created a moment later than another broker."""
    deadline = asyncio.get_running_loop().time() + TOPICS_S_MAX
    while True:
        found = await read_topic_ids(admin._client, names)  # the admin client sends nothing raw
        missing = sorted(set(names) - set(found))
        if not missing:
            return found
        if asyncio.get_running_loop().time() > deadline:
            raise OutsideFailing(f"topics {', '.join(missing)}: not known {TOPICS_S_MAX:.0f} s after their creation")
        await asyncio.sleep(TOPICS_LOOK_S)


async def _create(admin: Any, settings: Settings, missing: dict[str, dict[str, str]]) -> None:
    if not missing:
        return
    brokers = len((await admin.describe_cluster())["brokers"])
    replication = settings.replication or min(REPLICATION_WANTED, brokers)
    min_insync = settings.min_insync or max(1, replication - 1)
    news = [
        NewTopic(
            name, settings.partitions, replication, topic_configs={**config, "min.insync.replicas": str(min_insync)}
        )
        for name, config in missing.items()
    ]
    answer = await admin.create_topics(news)
    for name, code, *rest in answer.topic_errors:
        if code not in (0, _TOPIC_ALREADY_EXISTS):  # another worker may start at the same moment
            raise OutsideFailing(f"topic {name}: the broker refuses to create it (error {code}: {rest})")


async def _check(admin: Any, settings: Settings, names: list[str]) -> None:
    if not names:
        return
    for found in await admin.describe_topics(names):
        count = len(found["partitions"])
        if count != settings.partitions:
            raise BadSetting(
                f"HEADRACE_PARTITIONS={settings.partitions}: topic {found['topic']} has {count} partitions; "
                "use that number, or another HEADRACE_APP"
            )
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    for answer in await admin.describe_configs(resources):
        for _, _, _, name, entries in answer.resources:
            kinds = {entry[_NAME]: entry[_VALUE] for entry in entries}
            if kinds.get("message.timestamp.type") != "LogAppendTime":
                raise BadSetting(f"topic {name}: set message.timestamp.type=LogAppendTime; time is the log's own here")
            wanted = all_topics(settings)[name]["cleanup.policy"]
            if kinds.get("cleanup.policy") != wanted:
                raise BadSetting(f"topic {name}: set cleanup.policy={wanted}; else it forgets what must be kept")
