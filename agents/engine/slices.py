"""Slices on their way: what is taken from each partition, how much is in flight, how far it is finished."""

from collections import deque
from typing import Final, NamedTuple

from agents.engine.transport import Transport
from streams.records import Place, Record

IN_FLIGHT_MAX: Final = 1


class Slice(NamedTuple):
    """Consecutive records of one partition, handled as a unit by one of its readers.

    `next_offset` follows the last record. One without records only asks its reader to keep how far it is.
    """

    topic: str
    partition: int
    records: list[Record]
    next_offset: int
    reader: str = ""


class _Piece:
    """A slice in flight, and the readers that have not finished it."""

    def __init__(self, records: list[Record], readers: set[str]) -> None:
        self.next_offset = records[-1].offset + 1
        self.append_ms = records[0].append_ms
        self.waits_for = readers


class _Feed:
    """One partition of one topic: how far it is taken, and how far each of its readers has finished."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.finished: dict[str, int] = {}
        self.in_flight: deque[_Piece] = deque()

    @property
    def watermark(self) -> int:
        """What every reader has finished."""
        return min(self.finished.values(), default=self.position)


class Slices:
    """Takes slices in order and keeps the watermark: the end of the longest finished prefix.

    Where several agents read a topic, each gets every slice, from the lowest of their positions on: one skips what
    its own state holds already.
    """

    def __init__(self, transport: Transport) -> None:
        """Start with no partition, and paused: nothing is taken before every partition is open."""
        self._transport = transport
        self._feeds: dict[Place, _Feed] = {}
        self.paused = True

    def assign(self, place: Place, position: int, reader: str = "") -> None:
        """Read a partition, for one of its readers, from the position that its own state names."""
        feed = self._feeds.get(place)
        if feed is None or reader in feed.finished:
            feed = self._feeds[place] = _Feed(position)
        feed.finished[reader] = position
        feed.position = feed.watermark

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
        feed.in_flight.append(_Piece(records, set(feed.finished)))
        return Slice(*place, records, feed.position)

    def _pass_holes(self, place: Place, feed: _Feed) -> None:
        """Offsets that hold no record, such as Kafka's transaction markers, count as finished."""
        feed.position = self._transport.reached(*place, feed.position)
        if not feed.in_flight:
            feed.finished = {reader: max(finished, feed.position) for reader, finished in feed.finished.items()}

    def rewind(self) -> None:
        """Forget what is in flight: it will be taken again."""
        for feed in self._feeds.values():
            feed.in_flight.clear()
            feed.position = feed.watermark

    def finish(self, piece: Slice) -> None:
        """A reader has processed and committed a slice; when all have, there is room for the next, so look again."""
        feed, reader = self._feeds.get((piece.topic, piece.partition)), piece.reader
        if feed is None:
            return
        is_prefix = True
        for entry in feed.in_flight:
            if entry.next_offset == piece.next_offset:
                entry.waits_for.discard(reader)
            is_prefix = is_prefix and reader not in entry.waits_for
            if is_prefix:
                feed.finished[reader] = max(feed.finished[reader], entry.next_offset)
        while feed.in_flight and not feed.in_flight[0].waits_for:
            feed.in_flight.popleft()
        self._transport.wake()

    @property
    def positions(self) -> dict[Place, int]:
        """Where each partition is read on."""
        return {place: feed.position for place, feed in self._feeds.items()}

    @property
    def watermarks(self) -> dict[Place, int]:
        """What every reader has finished, of each partition."""
        return {place: feed.watermark for place, feed in self._feeds.items()}

    def readings(self) -> dict[tuple[str, Place], int]:
        """What each reader has finished, by its name and the place."""
        return {(reader, place): at for place, feed in self._feeds.items() for reader, at in feed.finished.items()}

    def finished(self, place: Place, reader: str) -> int:
        """What one reader has finished; 0 where it reads nothing."""
        feed = self._feeds.get(place)
        return 0 if feed is None else feed.finished.get(reader, 0)

    def watermark(self, place: Place) -> int:
        """Everything below this offset is finished."""
        return self._feeds[place].watermark

    def lag(self) -> dict[Place, int]:
        """Records not finished, per partition."""
        return {place: max(0, self._transport.end(*place) - feed.watermark) for place, feed in self._feeds.items()}

    def oldest_ms(self, place: Place, reader: str = "") -> int | None:
        """When the first record that a reader has not finished was appended; None: there is none, or not here yet."""
        feed = self._feeds.get(place)
        if feed is None:
            return None
        mine = (entry for entry in feed.in_flight if reader in entry.waits_for)
        waiting = next((entry for entry in mine if entry.next_offset > feed.finished[reader]), None)
        return waiting.append_ms if waiting else self._transport.appended_ms(*place, feed.position)

    def is_caught_up(self, place: Place) -> bool:
        """Whether everything in the partition is finished: what is in flight may have come before news of its end."""
        feed = self._feeds.get(place)
        return feed is not None and not feed.in_flight and self._transport.end(*place) <= feed.watermark

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not any(feed.in_flight for feed in self._feeds.values())
