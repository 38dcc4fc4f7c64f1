"""Slices on their way: what is taken from each partition, how much is in flight, how far it is finished."""

from collections import deque
from typing import Final, NamedTuple

from agents.engine.transport import Transport
from streams.records import Record

IN_FLIGHT_MAX: Final = 2

Place = tuple[str, int]


class Slice(NamedTuple):
    """Consecutive records of one partition, handled as a unit. `next_offset` follows the last record."""

    topic: str
    partition: int
    records: list[Record]
    next_offset: int


class _Feed:
    """One partition of one topic."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.finished = position
        self.in_flight: deque[list[int | bool]] = deque()


class Slices:
    """Takes slices in order and keeps the watermark: the end of the longest finished prefix."""

    def __init__(self, transport: Transport) -> None:
        """Start with no partition."""
        self._transport = transport
        self._feeds: dict[Place, _Feed] = {}
        self.paused = False

    def assign(self, place: Place, position: int) -> None:
        """Read a partition from the position that our own state names."""
        self._feeds[place] = _Feed(position)

    def revoke(self, place: Place) -> None:
        """Forget a partition, with what is in flight."""
        self._feeds.pop(place, None)

    def take(self, place: Place) -> Slice | None:
        """The next slice of a partition; None when it is read to the end, or enough is in flight."""
        feed = self._feeds.get(place)
        if feed is None or self.paused or len(feed.in_flight) >= IN_FLIGHT_MAX:
            return None
        records = self._transport.read(*place, feed.position)
        if not records:
            return None
        feed.position = records[-1].offset + 1
        feed.in_flight.append([feed.position, False])
        return Slice(*place, records, feed.position)

    def finish(self, piece: Slice) -> None:
        """A slice is processed and committed."""
        feed = self._feeds.get((piece.topic, piece.partition))
        if feed is None:
            return
        for entry in feed.in_flight:
            if entry[0] == piece.next_offset:
                entry[1] = True
        while feed.in_flight and feed.in_flight[0][1]:
            feed.finished = int(feed.in_flight.popleft()[0])

    def watermark(self, place: Place) -> int:
        """Everything below this offset is finished."""
        return self._feeds[place].finished

    def lag(self) -> dict[Place, int]:
        """Records not finished, per partition."""
        return {place: self._transport.end(*place) - feed.finished for place, feed in self._feeds.items()}

    def is_caught_up(self, place: Place) -> bool:
        """Whether everything in the partition is finished."""
        return self._transport.end(*place) <= self._feeds[place].finished

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not any(feed.in_flight for feed in self._feeds.values())
