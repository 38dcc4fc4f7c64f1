"""Dispatches: every send that was decided, what became of it, and in which order open ones are attempted."""

from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from config import metrics
from streams.codec import pack
from streams.errors import BadState
from streams.sends import LANES, Lane
from tables.dispatch_lanes import Waiting, lane_of, named
from tables.store import Batch, Store

State = Literal["new", "pending", "attempting", "retry", "held", "sent", "aborted", "failed"]
FINAL: Final = ("sent", "aborted", "failed")
RUNNING: Final = ("pending", "attempting", "retry")
LANES_MAX: Final = 4_096
PAGE: Final = 256
OVERFLOW: Final = "*"
"""The lane of all hosts beyond the first so many that have something waiting at the same time."""

_OPEN: Final = b"o"
_FINISHED: Final = b"f"
_READY: Final = b"r"
_DUE: Final[dict[Lane, bytes]] = {"transactional": b"w", "bulk": b"W"}
_HELD: Final = b"h"
_EXPIRES: Final = b"e"
_SEQ_MAX: Final = 1 << 63

Counts = dict[str, dict[str, int]]


class Dispatch(msgspec.Struct, array_like=True, gc=False):
    """One dispatch. `request` holds the rendered bytes while the dispatch is open, and nothing after.

    new (never stored) → pending → attempting → sent | retry | held | aborted | failed; a retry becomes pending
    when it is due, a held one when an operator releases it. `lane` is where a pending one waits, at `seq`, by
    `tables/dispatch_lanes.py`; `due_ms` is when a retry is due; `provider` is who made the last attempt; `kind`
    is the send's own lane.
    """

    dispatch_id: str
    campaign: str
    channel: str
    user: str
    version: int
    decided_ms: int
    state: State = "new"
    attempts: int = 0
    updated_ms: int = 0
    reason: str = ""
    address: str = ""
    request: bytes = b""
    host: str = ""
    provider: str = ""
    lane: str = ""
    seq: int = 0
    due_ms: int = 0
    kind: Lane = "transactional"


class _Tally(msgspec.Struct, array_like=True):
    """What is known of a partition's dispatches without reading them; an old one does not know who waits where."""

    counts: Counts = {}
    next_seq: int = 0
    attempting: list[str] = []
    waiting: Waiting | None = None


class _Lane(msgspec.Struct, gc=False):
    """Pending dispatches of one host: those with `head` <= seq < `tail` wait."""

    head: int
    tail: int


_decoder: Final = msgspec.msgpack.Decoder(Dispatch)
_tally_decoder: Final = msgspec.msgpack.Decoder(_Tally)


class Dispatches:
    """The dispatches of one partition; only the delivery agent moves them, from one task at a time.

    Pending ones wait in lanes, one per channel and host, first in first out; of them only the ends of each
    lane are in memory, so that millions may wait. Reading goes on where it stopped: what was taken is
    deleted, and deleted entries are never searched through.
    """

    def __init__(self, store: Store, partition: int) -> None:
        """Continue with what is stored; `counts` is {campaign: {state: n}} over all dispatches ever."""
        self._store = store
        self.partition = partition
        self._partition = partition.to_bytes(2, "big")
        data = store.get("meta", self._tally_key)
        tally = _Tally(waiting={}) if data is None else _tally_decoder.decode(data)
        self.counts: Counts = tally.counts
        self._next_seq = tally.next_seq
        self._attempting = dict.fromkeys(tally.attempting)
        self._waiting = tally.waiting
        self._lanes: dict[tuple[str, Lane], dict[str, _Lane]] = {}
        self._moved: list[tuple[Dispatch, int]] = []
        self._due_from_ms: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._expires_from_ms = 0

    def load(self) -> Iterator[None]:
        """Find the lanes that pending dispatches wait in; call it once, before `take`, and run it to its end."""
        if self._waiting is None:
            yield from self._count_waiting()
        at, end = _READY + self._partition, _READY + self._partition + b"\xff"
        while (row := next(self._store.scan("dispatches", at, end, 1), None)) is not None:
            channel, lane, first = _ready_parts(row[0])
            prefix = self._ready_prefix(channel, lane)
            last = self._store.last("dispatches", prefix, prefix + b"\xff" * 8)
            lanes = self._lanes.setdefault((channel, lane_of(lane)), {})
            lanes[lane] = _Lane(first, (_ready_parts(last[0])[2] if last else first) + 1)
            at = prefix + b"\xff" * 8
            yield

    def _count_waiting(self) -> Iterator[None]:
        """Count who waits where, in a folder of a version that did not."""
        waiting: Waiting = {}
        at, end = _READY + self._partition, _READY + self._partition + b"\xff"
        while rows := list(self._store.scan("dispatches", at, end, PAGE)):
            for key, _ in rows:
                channel, lane, _ = _ready_parts(key)
                place = named(lane_of(lane), channel)
                waiting[place] = waiting.get(place, 0) + 1
            at = rows[-1][0] + b"\0"
            yield
        self._waiting = waiting

    # ---- looking

    @property
    def running(self) -> int:
        """How many will still be attempted without anybody's doing."""
        return sum(by_state.get(state, 0) for by_state in self.counts.values() for state in RUNNING)

    def waiting(self, channel: str, lane: Lane) -> int:
        """How many of a channel's lane are pending."""
        return (self._waiting or {}).get(named(lane, channel), 0)

    def oldest_ms(self, channel: str, lane: Lane) -> int | None:
        """Since when the pending one that came first has waited; None where none does. Costs two reads."""
        lanes = self._lanes.get((channel, lane))
        if not lanes:
            return None
        name = min(lanes, key=lambda each: lanes[each].head)
        prefix = self._ready_prefix(channel, name)
        start, end = prefix + _number(lanes[name].head), prefix + _number(lanes[name].tail)
        first = self.open([value.decode() for _, value in self._store.scan("dispatches", start, end, 1)])
        return first[0].updated_ms if first else None

    def known(self, dispatch_ids: list[str]) -> set[str]:
        """Those of the ids that are recorded already."""
        found: set[str] = set()
        for kind in (_OPEN, _FINISHED):
            values = self._store.get_many("dispatches", [self._key(kind, name) for name in dispatch_ids])
            found.update(name for name, value in zip(dispatch_ids, values, strict=True) if value is not None)
        return found

    def find(self, dispatch_id: str) -> Dispatch | None:
        """One dispatch as last written, in whatever state; None for one that was never recorded, or is forgotten."""
        values = (self._store.get("dispatches", self._key(kind, dispatch_id)) for kind in (_OPEN, _FINISHED))
        return next((_decoder.decode(value) for value in values if value is not None), None)

    def open(self, dispatch_ids: list[str]) -> list[Dispatch]:
        """Those of the ids that have no final outcome, as last written."""
        values = self._store.get_many("dispatches", [self._key(_OPEN, name) for name in dispatch_ids])
        return [_decoder.decode(value) for value in values if value is not None]

    @property
    def moving(self) -> set[str]:
        """The ids that were moved and are not published: `open` still gives them as they were."""
        return {dispatch.dispatch_id for dispatch, _ in self._moved}

    @property
    def attempting(self) -> list[str]:
        """The ids between attempt and outcome."""
        return list(self._attempting)

    def held(self, after: str, limit: int) -> list[str]:
        """Ids of held dispatches in order of id, those above `after`."""
        start = self._key(_HELD, after + "\0")
        rows = self._store.scan("dispatches", start, self._key(_HELD, "\x7f"), limit)
        return [key[3:].decode() for key, _ in rows]

    def all(self, state: str = "") -> Iterator[Dispatch]:
        """Every dispatch, or every one in a state, the open ones first."""
        for page in self.pages(state):
            yield from page

    def pages(self, state: str = "") -> Iterator[list[Dispatch]]:
        """The same, as what a few hundred stored ones give at a time, often nothing: others may work in between."""
        if state == "held":
            at = ""
            while names := self.held(at, PAGE):
                yield self.open(names)
                at = names[-1]
            return
        for kind in (_OPEN, _FINISHED):
            start, end = kind + self._partition, kind + self._partition + b"\xff"
            while rows := list(self._store.scan("dispatches", start, end, PAGE)):
                found = (_decoder.decode(value) for _, value in rows)
                yield [dispatch for dispatch in found if not state or dispatch.state == state]
                start = rows[-1][0] + b"\0"

    # ---- taking

    def is_next(self, dispatch: Dispatch) -> bool:
        """Whether nothing of its lane waits before a new dispatch; sets its lane."""
        dispatch.lane = self._lane_of(dispatch)
        return dispatch.lane not in self._lanes.get((dispatch.channel, dispatch.kind), {})

    def take(self, channel: str, lane: Lane, room: Callable[[str], int], limit: int) -> list[Dispatch]:
        """Pending dispatches of a channel to attempt next, host by host, at most `room(name)` of each one's lane.

        They stay pending until they are moved, but are not taken again.
        """
        lanes = self._lanes.get((channel, lane), {})
        names: list[str] = []
        for name in list(lanes):
            wanted = min(room(name), limit - len(names))
            if wanted <= 0:
                continue
            names += self._take_from(lanes, channel, name, wanted)
            if len(names) >= limit:
                break
        return self.open(names)

    def _take_from(self, lanes: dict[str, _Lane], channel: str, name: str, wanted: int) -> list[str]:
        ends = lanes.pop(name)  # and to the end of the line, if something is left
        prefix = self._ready_prefix(channel, name)
        start, end = prefix + _number(ends.head), prefix + _number(ends.tail)
        rows = list(self._store.scan("dispatches", start, end, wanted))
        if rows:
            ends.head = _ready_parts(rows[-1][0])[2] + 1
        if len(rows) == wanted and ends.head < ends.tail:
            lanes[name] = ends
        return [value.decode() for _, value in rows]

    def due(self, lane: Lane, now_ms: int, limit: int) -> list[Dispatch]:
        """Retries of a lane due by now, in order of time."""
        prefix, since_ms = _DUE[lane] + self._partition, self._due_from_ms[lane]
        start, end = prefix + _number(since_ms), prefix + _number(now_ms + 1)
        keys = [key for key, _ in self._store.scan("dispatches", start, end, limit)]
        self._due_from_ms[lane] = _time_of(keys[-1]) if len(keys) == limit else max(since_ms, now_ms)
        return self.open([key[11:].decode() for key in keys])

    def expired(self, before_ms: int, limit: int) -> list[bytes]:
        """Keys of entries for dispatches that were final by then, for `forget`, oldest first."""
        prefix = _EXPIRES + self._partition
        start, end = prefix + _number(self._expires_from_ms), prefix + _number(before_ms + 1)
        keys = [key for key, _ in self._store.scan("dispatches", start, end, limit)]
        self._expires_from_ms = _time_of(keys[-1]) if len(keys) == limit else max(self._expires_from_ms, before_ms)
        return keys

    # ---- moving

    def move(self, batch: Batch, dispatch: Dispatch, state: State, now_ms: int, due_ms: int = 0) -> None:
        """Add a dispatch in its new state to a batch, with all that follows from it.

        Args:
            batch: what is committed, with `stage_tally`, before `publish`.
            dispatch: as it was last moved, or new; changed in place.
            state: the new one. Raises BadState if the old one is final: it is never replaced.
            now_ms: the worker's own time, from which the 72 h of a final one count.
            due_ms: when a retry is due.
        """
        if dispatch.state in FINAL:
            raise BadState(f"dispatch {dispatch.dispatch_id} is {dispatch.state} and cannot become {state}")
        is_new = dispatch.state == "new"
        self._leave(batch, dispatch)
        self._count(dispatch, state)
        dispatch.state = state
        self._moved.append((dispatch, now_ms))
        if state in FINAL:
            if not is_new:
                batch.delete("dispatches", self._key(_OPEN, dispatch.dispatch_id))
            dispatch.request = b""
            batch.put("dispatches", self._key(_FINISHED, dispatch.dispatch_id), pack(dispatch))
            expires = _EXPIRES + self._partition + _number(now_ms) + dispatch.dispatch_id.encode()
            batch.put("dispatches", expires, b"")
            return
        self._enter(batch, dispatch, due_ms)
        batch.put("dispatches", self._key(_OPEN, dispatch.dispatch_id), pack(dispatch))

    def _leave(self, batch: Batch, dispatch: Dispatch) -> None:
        """Take a dispatch out of where its old state has it."""
        if dispatch.state == "pending":
            batch.delete("dispatches", self._ready_prefix(dispatch.channel, dispatch.lane) + _number(dispatch.seq))
            self._count_lane(dispatch, -1)
        elif dispatch.state == "attempting":
            self._attempting.pop(dispatch.dispatch_id, None)
        elif dispatch.state == "retry":
            batch.delete("dispatches", self._waiting_key(dispatch))
        elif dispatch.state == "held":
            batch.delete("dispatches", self._key(_HELD, dispatch.dispatch_id))

    def _enter(self, batch: Batch, dispatch: Dispatch, due_ms: int) -> None:
        """Put a dispatch where its new, open state has it."""
        if dispatch.state == "pending":
            dispatch.seq, self._next_seq = self._next_seq, self._next_seq + 1
            dispatch.lane = self._lane_of(dispatch)
            key = self._ready_prefix(dispatch.channel, dispatch.lane) + _number(dispatch.seq)
            batch.put("dispatches", key, dispatch.dispatch_id.encode())
            self._count_lane(dispatch, 1)
        elif dispatch.state == "attempting":
            self._attempting[dispatch.dispatch_id] = None
        elif dispatch.state == "retry":
            dispatch.due_ms = due_ms
            batch.put("dispatches", self._waiting_key(dispatch), b"")
        elif dispatch.state == "held":
            batch.put("dispatches", self._key(_HELD, dispatch.dispatch_id), b"")

    def stage_tally(self, batch: Batch) -> None:
        """Add what the moves since the last call have made of counts and ends to the batch that holds them."""
        tally = _Tally(self.counts, self._next_seq, list(self._attempting), self._waiting)
        batch.put("meta", self._tally_key, pack(tally))

    def publish(self) -> set[str]:
        """After the commit: let what was moved be found; returns the channels that have more to attempt."""
        moved, self._moved = self._moved, []
        channels = set()
        for dispatch, now_ms in moved:
            if dispatch.state == "pending":
                lanes = self._lanes.setdefault((dispatch.channel, dispatch.kind), {})
                ends = lanes.setdefault(dispatch.lane, _Lane(dispatch.seq, dispatch.seq + 1))
                ends.tail = max(ends.tail, dispatch.seq + 1)
                channels.add(dispatch.channel)
            elif dispatch.state == "retry":
                self._due_from_ms[dispatch.kind] = min(self._due_from_ms[dispatch.kind], dispatch.due_ms)
            elif dispatch.state in FINAL:
                self._expires_from_ms = min(self._expires_from_ms, now_ms)
        return channels

    def forget(self, batch: Batch, keys: list[bytes]) -> None:
        """Remove final dispatches by what `expired` gave; counts stay."""
        for key in keys:
            batch.delete("dispatches", key)
            batch.delete("dispatches", _FINISHED + self._partition + key[11:])

    def _count(self, dispatch: Dispatch, state: State) -> None:
        by_state = self.counts.setdefault(dispatch.campaign, {})
        if dispatch.state != "new":
            by_state[dispatch.state] -= 1
        by_state[state] = by_state.get(state, 0) + 1

    def _count_lane(self, dispatch: Dispatch, change: int) -> None:
        if self._waiting is not None:
            place = named(dispatch.kind, dispatch.channel)
            self._waiting[place] = self._waiting.get(place, 0) + change

    def _lane_of(self, dispatch: Dispatch) -> str:
        lanes = self._lanes.get((dispatch.channel, dispatch.kind), {})
        name = named(dispatch.kind, dispatch.host)
        if name in lanes or len(lanes) < LANES_MAX:
            return name
        metrics.LIMIT_HITS.labels("dispatch_lanes").inc()
        return named(dispatch.kind, OVERFLOW)

    # ---- keys

    @property
    def _tally_key(self) -> bytes:
        return b"dispatches\0" + self._partition

    def _key(self, kind: bytes, dispatch_id: str) -> bytes:
        return kind + self._partition + dispatch_id.encode()

    def _ready_prefix(self, channel: str, lane: str) -> bytes:
        return _READY + self._partition + channel.encode() + b"\0" + lane.encode() + b"\0"

    def _waiting_key(self, dispatch: Dispatch) -> bytes:
        return _DUE[dispatch.kind] + self._partition + _number(dispatch.due_ms) + dispatch.dispatch_id.encode()


def _number(value: int) -> bytes:
    return max(0, min(value, _SEQ_MAX)).to_bytes(8, "big")


def _time_of(key: bytes) -> int:
    """The time in an entry of the waiting or the expiring."""
    return int.from_bytes(key[3:11], "big")


def _ready_parts(key: bytes) -> tuple[str, str, int]:
    """Channel, lane and number of an entry for a pending dispatch."""
    channel, lane = key[3:-9].split(b"\0", 1)
    return channel.decode(), lane.decode(), int.from_bytes(key[-8:], "big")
