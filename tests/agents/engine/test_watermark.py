"""The watermark: it never passes unfinished work, whatever is finished when, and holes neither stop nor mislead it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.engine.slices import IN_FLIGHT_MAX, Slice, Slices
from agents.engine.transport import Transport
from streams.records import Place, Record

PLACES: list[Place] = [("events", 0), ("mailbox", 0), ("mailbox", 1)]
SLICE_MAX = 3


@dataclass
class HoledLog:
    """A log in memory whose offsets may hold nothing, as Kafka's do after transactions; it grows while it is read."""

    records: dict[Place, list[Record | None]] = field(default_factory=lambda: {place: [] for place in PLACES})

    def grow(self, place: Place, kinds: Iterable[bool]) -> None:
        for is_record in kinds:
            offset = len(self.records[place])
            self.records[place].append(Record(offset, 0, None, b"") if is_record else None)

    def read(self, topic: str, partition: int, offset: int) -> list[Record]:
        return list(self._following((topic, partition), offset))[:SLICE_MAX]

    def _following(self, place: Place, offset: int) -> Iterator[Record]:
        return (record for record in self.records[place][offset:] if record is not None)

    def has_more(self, place: Place, offset: int) -> bool:
        return offset < len(self.records[place])

    def reached(self, topic: str, partition: int, offset: int) -> int:
        return max(offset, len(self.records[topic, partition]))

    def end(self, topic: str, partition: int) -> int:
        return len(self.records[topic, partition])

    def wake(self) -> None:
        """Nobody waits."""


Step = tuple[str, int, list[bool]]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(["grow", "grow", "take", "take", "take", "finish", "finish", "rewind", "move"]),
        st.integers(0, 5),
        st.lists(st.booleans(), min_size=1, max_size=6),
    ),
    min_size=20,
    max_size=60,
)


class Reading:
    """Slices over such a log, what is in flight, and what has been processed."""

    def __init__(self) -> None:
        self.log = HoledLog()
        self.slices = Slices(cast("Transport", self.log))
        self.slices.paused = False
        self.done: dict[Place, set[int]] = {place: set() for place in PLACES}
        self.flying: list[Slice] = []
        for place in PLACES:
            self.slices.assign(place, 0)

    def step(self, kind: str, number: int, kinds: list[bool]) -> None:
        """Let one thing happen, as a plan says."""
        place = PLACES[number % len(PLACES)]
        if kind == "grow":
            self.log.grow(place, kinds)
        elif kind == "take" and (piece := self.slices.take(place)) is not None:
            self.flying.append(piece)
        elif kind == "finish" and self.flying:
            self.finish(self.flying.pop(number % len(self.flying)))
        elif kind == "rewind":
            self.flying.clear()
            self.slices.rewind()
        elif kind == "move":  # away and back: the next owner continues at the watermark
            watermark = self.slices.watermark(place)
            self.slices.revoke(place)
            self.flying = [piece for piece in self.flying if (piece.topic, piece.partition) != place]
            self.slices.assign(place, watermark)

    def finish(self, piece: Slice) -> None:
        """Process a slice to its end; in any order even within a place, which no lane does."""
        self.done[piece.topic, piece.partition].update(record.offset for record in piece.records)
        self.slices.finish(piece)

    def check(self) -> None:
        """Everything below a watermark is processed, and no more is in flight than may be."""
        for place, watermark in self.slices.watermarks.items():
            below = {record.offset for record in self.log.records[place][:watermark] if record is not None}
            assert below <= self.done[place]
            assert sum((piece.topic, piece.partition) == place for piece in self.flying) <= IN_FLIGHT_MAX


@given(steps)
@settings(max_examples=200)
def test_the_watermark_never_passes_unfinished_work(plan: list[Step]) -> None:
    """Under any order of arrivals, slices, finishes and rewinds, all below it is finished, and in the end all is."""
    reading = Reading()
    for step in plan:
        reading.step(*step)
        reading.check()

    for piece in reading.flying:
        reading.finish(piece)
    for place in PLACES:
        while (rest := reading.slices.take(place)) is not None:
            reading.finish(rest)
        assert reading.slices.is_caught_up(place)
    reading.check()
