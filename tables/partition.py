"""The state of one mailbox partition: rows over the store, due timers, and the fold's position."""

from collections.abc import Iterator
from typing import Final

import msgspec

from streams.codec import pack
from streams.events import JSONScalar
from streams.positions import Position
from streams.profiles.row import Reachability, User, decode_consent, decode_row, encode_row
from tables.due import DueIndex
from tables.recent import BYTES_MAX, RecentRows
from tables.store import Batch, Store

PIECE_ROWS: Final = 50

_position_decoder: Final = msgspec.msgpack.Decoder(Position)


class PartitionState:
    """Implements `streams.fold.Rows`. Changes live in an overlay until `stage` hands them to a batch.

    Recent rows stay decoded, since later slices often ask for the same users.
    """

    def __init__(self, store: Store, partition: int, recent_bytes: int = BYTES_MAX) -> None:
        """Open the partition's state as of its last written batch; keep rows of so many bytes decoded."""
        self.partition = partition
        self._store = store
        self._prefix = partition.to_bytes(2, "big")
        self._dirty: dict[str, User] = {}
        self._recent = RecentRows(recent_bytes)
        self._passing: set[str] = set()
        self.due = DueIndex(store, partition)
        self.position = self._read_position()

    def _read_position(self) -> Position:
        data = self._store.get("meta", _position_key(self.partition))
        return Position() if data is None else _position_decoder.decode(data)

    def get(self, user_key: str) -> User | None:
        """The user's row; the caller owns it until `put`."""
        user = self._dirty.get(user_key)
        if user is None:
            user = self._recent.get(user_key)
        if user is not None:
            return user
        data = self._store.get("users", self._prefix + user_key.encode())
        return None if data is None else decode_row(data)

    def put(self, user_key: str, user: User, old_timer_ms: int | None) -> None:
        """Keep a changed row, and move its due entry."""
        self._dirty[user_key] = user
        self.due.move(user_key, old_timer_ms, user.timer_ms)

    def next_due(self, until_ms: int) -> tuple[int, str] | None:
        """The earliest due timer at or before a time."""
        return self.due.earliest(until_ms)

    def stretch(self, after: str, to: str | None, limit: int) -> list[tuple[str, User]]:
        """The first users in (after, to] and their rows, those not written yet among them.

        Neither the block cache nor the recent rows give up anything for them: only events tell who is asked for.
        """
        stored = dict(self._stored(after, to, limit))
        last = next(reversed(stored)) if len(stored) == limit else to
        unwritten = [key for key in self._dirty if key > after and (last is None or key <= last)]
        keys = sorted({*stored, *unwritten})[:limit] if unwritten else list(stored)
        rows: list[tuple[str, User]] = []
        for key in keys:
            user = self._dirty.get(key)
            if user is None:
                user = self._recent.get(key)
            if user is None:
                self._passing.add(key)
                user = decode_row(stored[key])
            rows.append((key, user))
        return rows

    def end_of_stretch(self, after: str, limit: int) -> tuple[str | None, int]:
        """The last of the first `limit` stored users after one, and how many; None when there are no more."""
        keys = [key for key, _ in self._stored(after, None, limit)]
        return (keys[-1] if len(keys) == limit else None), len(keys)

    def _stored(self, after: str, to: str | None, limit: int) -> Iterator[tuple[str, bytes]]:
        prefix = self._prefix
        end = (self.partition + 1).to_bytes(2, "big") if to is None else prefix + to.encode() + b"\0"
        start = prefix + after.encode() + b"\0"
        for key, value in self._store.scan("users", start, end, limit, fill_cache=False):
            yield key[2:].decode(), value

    @property
    def changed(self) -> int:
        """Rows that a batch would write."""
        return len(self._dirty)

    def stage(self, batch: Batch) -> None:
        """Add rows, due entries and position to a batch; the overlay starts anew."""
        for _ in self.stage_rows(batch):
            pass
        self.stage_rest(batch)

    def stage_rows(self, batch: Batch) -> Iterator[None]:
        """The rows alone, with a stop after every few, at which others may work; `stage_rest` must follow.

        Nobody may change this state in between.
        """
        for number, (user_key, user) in enumerate(self._dirty.items()):
            row = encode_row(user)
            batch.put("users", self._prefix + user_key.encode(), row)
            if user_key not in self._passing:
                self._recent.keep(user_key, user, len(row))
            if number % PIECE_ROWS == PIECE_ROWS - 1:
                yield

    def stage_rest(self, batch: Batch) -> None:
        """Due entries and position, behind the rows; the overlay starts anew.

        The batch must be written before the next one is staged; until then the due index knows what is under way.
        """
        self.due.stage(batch)
        batch.put("meta", _position_key(self.partition), pack(self.position))
        self._dirty = {}
        self._passing.clear()


def stage_state_position(batch: Batch, partition: int, position: Position) -> None:
    """Add where a partition's fold stands to a batch that is not of its own state."""
    batch.put("meta", _position_key(partition), pack(position))


def _position_key(partition: int) -> bytes:
    return b"position\0" + partition.to_bytes(2, "big")


class UsersView:
    """Read-only access to rows, for consent checks and for commands; sees what is written."""

    def __init__(self, store: Store) -> None:
        """Read from the given store."""
        self._store = store

    def get(self, partition: int, user_key: str) -> User | None:
        """The row as last written."""
        data = self._store.get("users", partition.to_bytes(2, "big") + user_key.encode())
        return None if data is None else decode_row(data)

    def attributes(self, partition: int, user_key: str) -> dict[str, JSONScalar] | None:
        """The attributes as last written; None for a user never seen, or whose row cannot be read."""
        found = self.consent(partition, user_key)
        return None if found is None else found[0]

    def consent(self, partition: int, user_key: str) -> tuple[dict[str, JSONScalar], Reachability | None] | None:
        """The attributes and what is known of the address, likewise."""
        data = self._store.get("users", partition.to_bytes(2, "big") + user_key.encode())
        return None if data is None else decode_consent(data)

    def raw(self, partition: int) -> Iterator[tuple[str, bytes]]:
        """Every row of a partition as stored, in order of user."""
        prefix = partition.to_bytes(2, "big")
        for key, value in self._store.scan("users", prefix, (partition + 1).to_bytes(2, "big")):
            yield key[2:].decode(), value

    def position(self, partition: int) -> Position:
        """Where the partition's fold stood at its last batch."""
        data = self._store.get("meta", _position_key(partition))
        return Position() if data is None else _position_decoder.decode(data)
