"""What agents ask of a transport; the embedded log and Kafka answer alike."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from streams.records import Output, Place, Record
from tables.store import Batch


class Log(Protocol):
    """The log as any client sees it: appended to, and looked at."""

    partitions: int

    async def start(self) -> None:
        """Connect, and see that the topics exist. Raises OutsideFailing or BadSetting."""

    async def stop(self) -> None:
        """Disconnect; what was not committed is lost."""

    def topic_id(self, topic: str) -> str:
        """What stands for this incarnation of the topic: another id means another log."""

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """The lowest offsets still kept; the end where nothing is."""

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offsets that the next records will get."""

    async def look(self, topic: str, partition: int, offset: int, records_max: int) -> list[Record]:
        """Records from an offset on, for operators and for rare look-ups: slower than `read`, of any place."""

    async def append(self, outputs: Sequence[Output]) -> None:
        """Append records without state, as a producer does; returns when they are kept across a crash."""


class Transport(Log, Protocol):
    """A partitioned log with state beside it. Offsets of one partition only rise; readers tolerate holes."""

    async def open(self, partition: int) -> None:
        """Own a partition: fence whoever owned it before, and bring the store to its last commit."""

    async def close(self, partition: int) -> None:
        """Give a partition up, in good order: what was handed in is kept."""

    async def suspend(self) -> None:
        """Keep what was handed in, then hold back further commits: partitions may be about to go elsewhere."""

    async def reclaim(self) -> None:
        """Let commits go on for every partition that is still open here.

        Raises an error that must end the process when somebody else has owned one since `suspend`.
        """

    def abandon(self, partition: int) -> None:
        """The partition is somebody else's now: commits that wait, and any to come, raise Revoked."""

    def abandon_released(self) -> None:
        """As `abandon`, for every partition that was suspended and not reclaimed."""

    async def confirm(self, partition: int) -> None:
        """Return if an open partition is surely still ours: call before acting on the world outside.

        Raises an error that must end the process when somebody else owns it.
        """

    def follow(self, positions: dict[Place, int]) -> None:
        """Make `read` serve these places, from these offsets on, and no others."""

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        """The next slice of a followed place: within its bounds, at least one record if one has arrived."""

    def has_more(self, place: Place, offset: int) -> bool:
        """Whether `read` at an offset of a followed place would give something, or pass holes; next to free."""

    def appended_ms(self, topic: str, partition: int, offset: int) -> int | None:
        """The append time of the record that `read` would give first; None when none has arrived."""

    def reached(self, topic: str, partition: int, offset: int) -> int:
        """Where the next record can lie at the lowest when `read` at `offset` gave nothing: holes are passed."""

    def end(self, topic: str, partition: int) -> int:
        """The end of a followed place as last heard of; `ends` asks."""

    def listen(self) -> None:
        """Call before looking through places: what arrives from here on, at one passed already too, ends `wait`."""

    async def wait(self, timeout_s: float) -> None:
        """Wait until something may be readable that was not at the last `listen`, at most so long."""

    def wake(self) -> None:
        """Let a waiting reader look again."""

    def batch(self) -> Batch:
        """An empty batch of state writes for `commit`."""

    async def commit(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """Write an open partition's state and outputs together, whole or not at all.

        Returns when both are kept across a crash. Raises an error that must end the process: after it,
        nobody knows what was kept.
        """

    async def forward(self, partition: int, batch: Batch, outputs: Sequence[Output]) -> None:
        """Append outputs, then keep the state: after a crash the state may be older than the outputs.

        Cheaper than `commit` where outputs go to many partitions; only for outputs whose repetition is
        recognised by their cause. Returns when the outputs are kept across a crash.
        """

    async def sync(self, patience_s: float = 0.0) -> None:
        """Make everything so far survive power loss, where `commit` alone does not.

        `patience_s`: the caller can wait so much longer, which leaves the disk to others.
        """

    async def trim(
        self, topic: str, partition: int, below_offset: int, before_ms: int, bytes_max: int | None = None
    ) -> int:
        """Drop what every reader has passed and retention no longer keeps; returns the pieces dropped."""

    def size_bytes(self, topic: str, partition: int) -> int:
        """Bytes that `trim` has still left of a partition; 0 where the log is not ours to trim."""
