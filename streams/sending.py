"""Sending lines into the events topic: which partition a line belongs to, and how a replay ends."""

from typing import Final

import msgspec

from streams import topics
from streams.codec import partition_of, to_json
from streams.records import Output
from streams.times import format_time, parse_time


class _Line(msgspec.Struct):
    external_id: str | None = None
    time: str | None = None


_decoder: Final = msgspec.json.Decoder(_Line)


class Sender:
    """Makes records of lines; a line that cannot be read is sent as it is, for intake to refuse."""

    def __init__(self, partitions: int) -> None:
        """Send to so many partitions."""
        self._partitions = partitions
        self._last_ms = 0

    def output(self, line: bytes) -> Output:
        """The record of a line, keyed by its external id where it has one."""
        try:
            found = _decoder.decode(line)
            if found.time is not None:
                self._last_ms = max(self._last_ms, parse_time(found.time))
        except (ValueError, RecursionError, OverflowError):
            found = _Line()
        key = found.external_id.encode() if found.external_id else None
        partition = 0 if key is None else partition_of(key, self._partitions)
        return Output(topics.EVENTS.name, partition, key, line)

    def ends(self) -> list[Output]:
        """One record per partition that brings its clock to the last time sent."""
        value = to_json({"type": "end", "time": format_time(self._last_ms)})
        return [Output(topics.EVENTS.name, partition, None, value) for partition in range(self._partitions)]
