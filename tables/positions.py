"""Where agents continue in their topics: kept with the state that the position belongs to."""

from tables.store import Batch, Store


def read_position(store: Store, agent: str, topic: str, partition: int) -> int:
    """The next offset of an agent in a partition; 0 when it has never committed one."""
    data = store.get("meta", _key(agent, topic, partition))
    return 0 if data is None else int.from_bytes(data, "big")


def stage_position(batch: Batch, agent: str, topic: str, partition: int, next_offset: int) -> None:
    """Add a position to a batch."""
    batch.put("meta", _key(agent, topic, partition), next_offset.to_bytes(8, "big"))


def read_refused(store: Store, partition: int) -> int:
    """How many dead letters intake has written for an events partition."""
    data = store.get("meta", _refused_key(partition))
    return 0 if data is None else int.from_bytes(data, "big")


def stage_refused(batch: Batch, partition: int, count: int) -> None:
    """Add that count to the batch that wrote them."""
    batch.put("meta", _refused_key(partition), count.to_bytes(8, "big"))


def _refused_key(partition: int) -> bytes:
    return b"refused\0" + partition.to_bytes(2, "big")


def _key(agent: str, topic: str, partition: int) -> bytes:
    return b"next\0" + f"{agent}\0{topic}\0".encode() + partition.to_bytes(2, "big")
