"""Slices on their way: what is taken from each partition, how much is in flight, how far it is finished."""

from collections import deque
from typing import Final, NamedTuple

from agents.engine.transport import Transport
from streams.records import Place, Record

IN_FLIGHT_MAX: Final = 1


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
        """Start with no partition, and paused: nothing is taken before every partition is open."""
        self._transport = transport
        self._feeds: dict[Place, _Feed] = {}
        self.paused = True

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
        if not self._transport.has_more(place, feed.position):
            return None
        records = self._transport.read(*place, feed.position)
        if not records:
            self._pass_holes(place, feed)
            return None
        feed.position = records[-1].offset + 1
        feed.in_flight.append([feed.position, False, records[0].append_ms])
        return Slice(*place, records, feed.position)

    def _pass_holes(self, place: Place, feed: _Feed) -> None:
        """Offsets that hold no record, such as Kafka's transaction markers, count as finished."""
        feed.position = self._transport.reached(*place, feed.position)
        if not feed.in_flight:
            feed.finished = feed.position

    def rewind(self) -> None:
        """Forget what is in flight: it will be taken again."""
        for feed in self._feeds.values():
            feed.in_flight.clear()
            feed.position = feed.finished

    def finish(self, piece: Slice) -> None:
        """A slice is processed and committed: there is room for the next, so whoever waits to read looks again."""
        feed = self._feeds.get((piece.topic, piece.partition))
        if feed is None:
            return
        for entry in feed.in_flight:
            if entry[0] == piece.next_offset:
                entry[1] = True
        while feed.in_flight and feed.in_flight[0][1]:
            feed.finished = int(feed.in_flight.popleft()[0])
        self._transport.wake()

    @property
    def positions(self) -> dict[Place, int]:
        """Where each partition is read on."""
        return {place: feed.position for place, feed in self._feeds.items()}

    @property
    def watermarks(self) -> dict[Place, int]:
        """What is finished, of each partition."""
        return {place: feed.finished for place, feed in self._feeds.items()}

    def watermark(self, place: Place) -> int:
        """Everything below this offset is finished."""
        return self._feeds[place].finished

    def lag(self) -> dict[Place, int]:
        """Records not finished, per partition."""
        return {place: max(0, self._transport.end(*place) - feed.finished) for place, feed in self._feeds.items()}

    def oldest_ms(self, place: Place) -> int | None:
        """When the first record not finished was appended; None when there is none, or it has not arrived."""
        feed = self._feeds.get(place)
        if feed is None:
            return None
        return int(feed.in_flight[0][2]) if feed.in_flight else self._transport.appended_ms(*place, feed.position)

    def is_caught_up(self, place: Place) -> bool:
        """Whether everything in the partition is finished."""
        feed = self._feeds.get(place)
        return feed is not None and self._transport.end(*place) <= feed.finished

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not any(feed.in_flight for feed in self._feeds.values())
