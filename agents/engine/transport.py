"""What agents ask of a transport; the embedded log and Kafka answer alike."""

from collections.abc import Sequence
from typing import Protocol

from streams.records import Output, Record
from tables.store import Batch


class Transport(Protocol):
    """A partitioned log with state beside it. Offsets of one partition only rise; readers tolerate holes."""

    partitions: int

    def topic_id(self, topic: str) -> str:
        """What stands for this incarnation of the topic: another id means another log."""

    def start(self, topic: str, partition: int) -> int:
        """The lowest offset still kept."""

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record will get."""

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice from an offset on: within its bounds, at least one record if there is one."""

    async def wait(self, timeout_s: float) -> None:
        """Wait until something may be readable, at most so long."""

    def batch(self) -> Batch:
        """An empty batch of state writes for `commit`."""

    async def commit(self, batch: Batch, outputs: Sequence[Output]) -> None:
        """Write state and outputs together, whole or not at all; returns when both are kept across a crash.

        Raises an error that must end the process: after it, nobody knows what was kept.
        """

    async def append(self, outputs: Sequence[Output]) -> None:
        """Append records without state, as a producer does; returns when they are kept across a crash."""

    async def sync(self) -> None:
        """Make everything so far survive power loss, where `commit` alone does not."""
