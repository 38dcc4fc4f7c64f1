"""The reports of a partition: counters by campaign, variant and hour or day, and what their uniqueness needs."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import msgspec

from streams.codec import pack
from streams.errors import BadState
from streams.reports import (
    DAY_S,
    HOUR_S,
    HOURS_KEPT_S,
    RECIPIENTS_KEPT_S,
    SEEN_KEPT_S,
    About,
    Bucket,
    Counts,
    Seen,
    Unit,
)
from tables.store import Batch, Store

FAMILY: Final = "reports"

_COUNTS, _ABOUT, _SEEN, _RECEIVED = b"c", b"n", b"s", b"u"
_UNITS: Final[Mapping[Unit, bytes]] = {"all": b"a", "day": b"d", "hour": b"h"}
_UNIT_OF: Final[Mapping[bytes, Unit]] = {letter: unit for unit, letter in _UNITS.items()}
_ZERO: Final = 1 << 31  # added to numbers, so that those before 1970 have an order too
_SIZE: Final = 4


class Progress(msgspec.Struct, array_like=True):
    """How far a partition is counted, and the latest time in a record so far, in seconds."""

    next_offset: int = 0
    clock_s: int = 0


class Swept(NamedTuple):
    """What a look for old rows has found: their keys, and where to look on; None at the end.

    `told` are those of them that readers of reports were told of.
    """

    keys: list[bytes]
    told: list[bytes]
    cursor: bytes | None


_decode_progress: Final = msgspec.msgpack.Decoder(Progress).decode
_decode_counts: Final = msgspec.msgpack.Decoder(Counts).decode
_decode_about: Final = msgspec.msgpack.Decoder(About).decode
_decode_seen: Final = msgspec.msgpack.Decoder(Seen).decode


def read_progress(store: Store, partition: int) -> Progress:
    """How far a partition is counted."""
    data = store.get("meta", _progress_key(partition))
    return Progress() if data is None else _decode_progress(data)


def stage_progress(batch: Batch, partition: int, progress: Progress) -> None:
    """Add it to the batch that writes the counts."""
    batch.put("meta", _progress_key(partition), pack(progress))


def _progress_key(partition: int) -> bytes:
    return b"reports\0" + partition.to_bytes(2, "big")


class ReportsTable:
    """Implements `streams.reports.Table`. Changes live in an overlay until `stage` hands them to a batch."""

    def __init__(self, store: Store, partition: int) -> None:
        """As last written."""
        self._store = store
        self._prefix = partition.to_bytes(2, "big")
        self._stored: dict[bytes, bytes | None] = {}
        self._rows: dict[bytes, Counts | About | Seen] = {}
        self._counts: dict[Bucket, Counts] = {}
        self._days: dict[bytes, int] = {}

    def counts(self, bucket: Bucket) -> Counts:
        """The counts of a bucket."""
        row = self._counts.get(bucket)
        if row is None:
            key = self._prefix + counts_key(bucket)
            data = self._read(key)
            row = self._counts[bucket] = self._rows[key] = Counts() if data is None else _decode_counts(data)
        return row

    def about(self, campaign: str) -> About:
        """What is known of a campaign."""
        key = self._prefix + _ABOUT + campaign.encode()
        row = self._rows.get(key)
        if row is None:
            data = self._read(key)
            row = self._rows[key] = About() if data is None else _decode_about(data)
        assert isinstance(row, About)
        return row

    def seen(self, dispatch_id: str) -> Seen:
        """What is remembered of a dispatch."""
        key = self._prefix + _SEEN + dispatch_id.encode()
        row = self._rows.get(key)
        if row is None:
            data = self._read(key)
            row = self._rows[key] = Seen() if data is None else _decode_seen(data)
        assert isinstance(row, Seen)
        return row

    def received(self, campaign: str, user_id: str, day: int) -> bool:
        """Whether the user had received the campaign on that day, or on a later one."""
        key = self._prefix + _RECEIVED + f"{user_id}\0{campaign}".encode()
        last = self._days.get(key)
        if last is None:
            data = self._read(key)
            last = self._days[key] = -_ZERO if data is None else _number(data)
        self._days[key] = max(last, day)
        return day <= last

    def _read(self, key: bytes) -> bytes | None:
        data = self._stored[key] = self._store.get(FAMILY, key)
        return data

    def stage(self, batch: Batch) -> list[tuple[bytes, bytes]]:
        """Add what has changed to a batch, and start the overlay anew.

        Returns:
            The changed rows that a reader of reports needs, by their keys.
        """
        told = []
        for key, row in self._rows.items():
            data = pack(row)
            if data != self._stored[key]:
                batch.put(FAMILY, key, data)
                if not isinstance(row, Seen):
                    told.append((key, data))
        for key, day in self._days.items():
            data = _bytes(day)
            if data != self._stored[key]:
                batch.put(FAMILY, key, data)
        self._rows.clear()
        self._counts.clear()
        self._days.clear()
        self._stored.clear()
        return told

    @property
    def changed(self) -> int:
        """Rows that `stage` would look at."""
        return len(self._rows) + len(self._days)

    def old(self, clock_s: int, cursor: bytes, limit: int) -> Swept:
        """Rows that the fold takes for none any more, of the next `limit` behind a cursor (nothing: the first)."""
        start, end = cursor or self._prefix, (int.from_bytes(self._prefix, "big") + 1).to_bytes(2, "big")
        found: list[bytes] = []
        last = None
        rows = list(self._store.scan(FAMILY, start, end, limit, fill_cache=False))
        for key, value in rows:
            last = key
            if _is_old(key[2:3], key, value, clock_s):
                found.append(key)
        told = [key for key in found if key[2:3] == _COUNTS]
        return Swept(found, told, last + b"\0" if last is not None and len(rows) == limit else None)


def _is_old(kind: bytes, key: bytes, value: bytes, clock_s: int) -> bool:
    if kind == _SEEN:
        seen = _decode_seen(value)
        return clock_s - max(seen.opened_s, seen.opened_by_person_s, seen.clicked_s) >= SEEN_KEPT_S
    if kind == _RECEIVED:
        return clock_s - _number(value) * DAY_S >= RECIPIENTS_KEPT_S
    if kind == _COUNTS:
        bucket = read_counts_key(key[2:])
        return bucket.unit == "hour" and clock_s - bucket.number * HOUR_S >= HOURS_KEPT_S + HOUR_S
    return False


class ReportRows:
    """Read-only: counters as last written, for whoever answers questions."""

    def __init__(self, store: Store) -> None:
        """Read from the given store."""
        self._store = store

    def told(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Every row that a reader of reports needs, as stored, by its key."""
        prefix = partition.to_bytes(2, "big")
        for kind in (_COUNTS, _ABOUT):
            yield from self._store.scan(FAMILY, prefix + kind, prefix + bytes((kind[0] + 1,)), fill_cache=False)

    def rows(self, partition: int) -> Iterator[tuple[Bucket, Counts] | tuple[str, About]]:
        """The same, read."""
        for key, value in self.told(partition):
            yield read_told(key, value)

    def remembered(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """What is remembered for uniqueness, as stored."""
        prefix = partition.to_bytes(2, "big")
        for kind in (_SEEN, _RECEIVED):
            yield from self._store.scan(FAMILY, prefix + kind, prefix + bytes((kind[0] + 1,)), fill_cache=False)

    def totals(self, partition: int) -> Iterator[tuple[Bucket, Counts]]:
        """The counts over all time, of every campaign."""
        prefix = partition.to_bytes(2, "big") + _COUNTS + _UNITS["all"]
        return self._counts(prefix, prefix + b"\xff")

    def series(self, partition: int, campaign: str, unit: Unit) -> Iterator[tuple[Bucket, Counts]]:
        """A campaign's counts by the hour or day, variant by variant, in order of time."""
        prefix = partition.to_bytes(2, "big") + _COUNTS + _UNITS[unit] + campaign.encode()
        return self._counts(prefix + b"\0", prefix + b"\1")

    def _counts(self, start: bytes, end: bytes) -> Iterator[tuple[Bucket, Counts]]:
        for key, value in self._store.scan(FAMILY, start, end, fill_cache=False):
            yield read_counts_key(key[2:]), _decode_counts(value)

    def abouts(self, partition: int) -> Iterator[tuple[str, About]]:
        """What is known of each campaign that was sent."""
        prefix = partition.to_bytes(2, "big") + _ABOUT
        for key, value in self._store.scan(FAMILY, prefix, prefix + b"\xff", fill_cache=False):
            yield key[3:].decode(), _decode_about(value)


def counts_key(bucket: Bucket) -> bytes:
    """The key of a bucket, behind the partition."""
    names = f"{bucket.campaign}\0{bucket.variant}\0".encode()
    return _COUNTS + _UNITS[bucket.unit] + names + _bytes(bucket.number)


def read_counts_key(key: bytes) -> Bucket:
    """The bucket of a key, behind the partition. Raises BadState for any other."""
    campaign, _, rest = key[2:-_SIZE].partition(b"\0")
    unit = _UNIT_OF.get(key[1:2])
    if key[:1] != _COUNTS or unit is None or not rest.endswith(b"\0"):
        raise BadState(f"{key!r} is no key of a report's counts")
    return Bucket(campaign.decode(), rest[:-1].decode(), unit, _number(key[-_SIZE:]))


def read_told(key: bytes, value: bytes) -> tuple[Bucket, Counts] | tuple[str, About]:
    """A row of `ReportRows.told`, of counts or of what is known of a campaign."""
    if key[2:3] == _COUNTS:
        return read_counts_key(key[2:]), _decode_counts(value)
    if key[2:3] == _ABOUT:
        return key[3:].decode(), _decode_about(value)
    raise BadState(f"{key[:3]!r} begins no row of reports")


def _bytes(number: int) -> bytes:
    return (number + _ZERO).to_bytes(_SIZE, "big")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big") - _ZERO
