"""The watermark: it never passes unfinished work, whatever is finished when, and holes neither stop nor mislead it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given
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

    def reached(self, topic: str, partition: int, offset: int) -> int:
        return max(offset, len(self.records[topic, partition]))

    def end(self, topic: str, partition: int) -> int:
        return len(self.records[topic, partition])

    def wake(self) -> None:
        """Nobody waits."""


Step = tuple[str, int, list[bool]]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(
        st.sampled_from(["grow", "take", "take", "finish", "finish", "rewind", "move"]),
        st.integers(0, 99),
        st.lists(st.booleans(), min_size=1, max_size=6),
    ),
    max_size=60,
)


@given(steps)
def test_the_watermark_never_passes_unfinished_work(plan: list[Step]) -> None:
    """Under any order of arrivals, slices, finishes and rewinds, all below it is finished, and in the end all is."""
    log = HoledLog()
    slices = Slices(cast("Transport", log))
    slices.paused = False
    done: dict[Place, set[int]] = {place: set() for place in PLACES}
    flying: list[Slice] = []
    for place in PLACES:
        slices.assign(place, 0)

    def check() -> None:
        for place, watermark in slices.watermarks.items():
            below = {record.offset for record in log.records[place][:watermark] if record is not None}
            assert below <= done[place]
            assert sum((piece.topic, piece.partition) == place for piece in flying) <= IN_FLIGHT_MAX

    for kind, number, kinds in plan:
        place = PLACES[number % len(PLACES)]
        if kind == "grow":
            log.grow(place, kinds)
        elif kind == "take" and (piece := slices.take(place)) is not None:
            flying.append(piece)
        elif kind == "finish" and flying:
            finish(slices, flying.pop(number % len(flying)), done)
        elif kind == "rewind":
            flying.clear()
            slices.rewind()
        elif kind == "move":  # away and back: the next owner continues at the watermark
            watermark = slices.watermark(place)
            slices.revoke(place)
            flying = [piece for piece in flying if (piece.topic, piece.partition) != place]
            slices.assign(place, watermark)
        check()

    for piece in flying:
        finish(slices, piece, done)
    for place in PLACES:
        while (rest := slices.take(place)) is not None:
            finish(slices, rest, done)
        assert slices.is_caught_up(place)
    check()
    assert not any(slices.lag().values())


def finish(slices: Slices, piece: Slice, done: dict[Place, set[int]]) -> None:
    """Process a slice to its end; those of a place may finish in any order here, which no agent even does."""
    done[piece.topic, piece.partition].update(record.offset for record in piece.records)
    slices.finish(piece)
