"""Topic ids, which tell a topic from one of the same name made later; aiokafka's own metadata has none yet."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

_METADATA: Final = 3
_VERSION: Final = 10
_NO_ID: Final = 0
_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1


class _TopicsAnswer(Response):  # type: ignore[misc]  # aiokafka has no types
    API_KEY = _METADATA
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("id_high", Int64),
                ("id_low", Int64),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("operations", Int32),
        ("tags", TaggedFields),
    )


class _TopicsQuestion(RequestStruct):  # type: ignore[misc]
    API_KEY = _METADATA
    API_VERSION = _VERSION
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicsAnswer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("id_high", Int64), ("id_low", Int64), ("name", CompactString("utf-8")), ("tags", TaggedFields)
            ),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Topics(Request[_TopicsQuestion]):  # type: ignore[misc]
    API_KEY = _METADATA

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def build(self, request_struct_class: type[_TopicsQuestion]) -> _TopicsQuestion:
        asked: list[tuple[int, int, str, dict[int, bytes]]] = [(_NO_ID, _NO_ID, name, {}) for name in self._names]
        return request_struct_class(asked, False, False, False, {})


async def read_topic_ids(client: AIOKafkaClient, names: Iterable[str]) -> dict[str, str]:
    """The topics among `names` that exist, and their ids as 32 hex digits."""
    answer: Any = await client.send(client.get_random_node(), _Topics(sorted(names)))
    return {
        topic[1]: f"{((topic[2] & _MASK) << _BITS) | (topic[3] & _MASK):032x}"
        for topic in answer.topics
        if topic[0] == 0
    }
