"""What the engine asks of an agent: state per partition, and one slice at a time."""

from collections.abc import Sequence
from typing import Protocol

from agents.engine.slices import Slice
from streams.topics import Topic


class Agent(Protocol):
    """Reads whole slices of its topics. It holds only the partitions that were opened and not closed since.

    `handle` processes and commits one slice and then calls `slices.finish`; slices of one partition never
    overlap, those of different partitions do.
    """

    @property
    def name(self) -> str:
        """The agent's name in Faust's `agents` command, and its label in metrics."""

    @property
    def reads(self) -> Sequence[Topic]:
        """The topics that it reads."""

    async def open(self, partition: int) -> None:
        """Take a partition up from its stored state; the transport has it open already."""

    async def close(self, partition: int) -> None:
        """Forget a partition; nothing of it is in flight any more, and nothing may be written for it."""

    def position(self, topic: str, partition: int) -> int:
        """The offset from which the agent's stored state continues a topic of an open partition."""

    async def rest(self) -> None:
        """Begin nothing new beside the slices, and give what is under way a moment to end."""

    def go_on(self) -> None:
        """The rest is over."""

    async def handle(self, piece: Slice) -> None:
        """Process and commit one slice."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Commit that a topic is read so far, though nothing came of it: never beyond what its state has of it.

        Comes in line with the partition's slices, and never beside one.
        """
