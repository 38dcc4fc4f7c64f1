"""The whole pipeline in memory, with a manual clock: events in, rows and effects out, no broker, no disk.

Also for a customer's own workspace: build a `Driver` from the files of a folder, `send` events, `advance`
the clock, and look at `rows`, `changes` and `sends`.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping
from typing import Any

import msgspec

from streams.codec import pack, partition_of, to_json
from streams.definitions import Definitions, read_definitions
from streams.effects import CurrentsRecord, Effect, Post, SegmentChange
from streams.engagement import SigningKeys
from streams.fold import ClockMode, Fold
from streams.intake import route
from streams.mailbox import Letter, Outcome, OutcomeKind, Switch, Tick, decode_letter
from streams.positions import Position
from streams.profiles.row import User, decode_row, encode_row
from streams.records import Output, Record
from streams.sends import Send
from streams.workspace import Workspace, compile_workspace


class MemoryRows:
    """Rows as bytes in a dict, timers in a sorted list: the plainest thing that keeps the fold's contract."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.due: list[tuple[int, str]] = []

    def get(self, user_key: str) -> User | None:
        data = self.stored.get(user_key)
        return None if data is None else decode_row(data)

    def put(self, user_key: str, user: User, old_timer_ms: int | None) -> None:
        self.stored[user_key] = encode_row(user)
        if old_timer_ms is not None:
            del self.due[bisect_left(self.due, (old_timer_ms, user_key))]
        if user.timer_ms is not None:
            insort(self.due, (user.timer_ms, user_key))

    def next_due(self, until_ms: int) -> tuple[int, str] | None:
        return self.due[0] if self.due and self.due[0][0] <= until_ms else None

    def stretch(self, after: str, to: str | None, limit: int) -> list[tuple[str, User]]:
        keys = [key for key in sorted(self.stored) if key > after and (to is None or key <= to)][:limit]
        return [(key, decode_row(self.stored[key])) for key in keys]


class Driver:
    """One partition or several, driven by hand; `now_ms` moves only when the test says so."""

    def __init__(
        self,
        files: Mapping[str, Any],
        *,
        clock: ClockMode = "wall",
        partitions: int = 1,
        keys: SigningKeys = (),
    ) -> None:
        self.keys = keys
        self.now_ms = 1_000_000_000_000
        self.definitions: list[Definitions] = []
        self.workspaces: dict[int, Workspace] = {-1: compile_workspace(Definitions([], []), -1)}
        self.clock: ClockMode = clock
        self.rows = [MemoryRows() for _ in range(partitions)]
        self.mailboxes: list[list[Record]] = [[] for _ in range(partitions)]
        self.effects: list[Effect] = []
        self.dead_letters: list[Output] = []
        self.folds = [
            Fold(rows, Position(), clock, self.workspaces.__getitem__, (at, partitions))
            for at, rows in enumerate(self.rows)
        ]
        self._offset = 0
        self.switch(read_definitions(files))

    def switch(self, definitions: Definitions) -> None:
        """Let every partition go over to these definitions."""
        version = len(self.definitions)
        self.definitions.append(definitions)
        self.workspaces[version] = compile_workspace(definitions, version)
        for partition in range(len(self.folds)):
            self.deliver(partition, None, Switch(version))

    def pause(self, *campaigns: str) -> None:
        """Pause exactly these campaigns."""
        self.switch(msgspec.structs.replace(self.definitions[-1], paused=list(campaigns)))

    def send(self, value: Mapping[str, Any] | bytes, key: bytes | None = None) -> list[Effect]:
        """Put one record into the events topic and process it to the end; returns its effects."""
        data = value if isinstance(value, bytes) else to_json(value)
        record = Record(self._offset, self.now_ms, key, data)
        self._offset += 1
        partition = 0
        if self.clock == "stream" and len(self.folds) > 1 and key is not None:
            partition = partition_of(key, len(self.folds))
        before = len(self.effects)
        for output in route(record, "events", partition, len(self.folds), self.clock, self.keys):
            if output.topic == "mailbox":
                self._append(output.partition, output.key, output.value)
            else:
                self.dead_letters.append(output)
        return self.effects[before:]

    def advance(self, milliseconds: int) -> list[Effect]:
        """Let time pass and tick every partition; returns the effects of the timers."""
        self.now_ms += milliseconds
        before = len(self.effects)
        for partition in range(len(self.folds)):
            self.deliver(partition, None, Tick(self.now_ms))
        return self.effects[before:]

    def outcome(
        self,
        send: Send,
        kind: OutcomeKind = "sent",
        at_ms: int | None = None,
        attempt: int = 1,
        *,
        delivered: bool = False,
    ) -> list[Effect]:
        """Report what became of a send."""
        before = len(self.effects)
        at_ms = self.now_ms if at_ms is None else at_ms
        address = str(send.profile.get("email_address", ""))
        outcome = Outcome(send.dispatch_id, attempt, kind, at_ms, address=address, delivered=delivered)
        self.deliver(partition_of(send.user.encode(), len(self.folds)), send.user.encode(), outcome)
        return self.effects[before:]

    def deliver(self, partition: int, key: bytes | None, letter: Letter) -> None:
        """Append a letter to a mailbox and fold it."""
        self._append(partition, key, pack(letter))

    def _append(self, partition: int, key: bytes | None, value: bytes) -> None:
        mailbox = self.mailboxes[partition]
        record = Record(len(mailbox), self.now_ms, key, value)
        mailbox.append(record)
        fold_record(self.folds[partition], record)
        effects = self.folds[partition].take_effects()
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Post):
                key = effect.user.encode()
                self._append(partition_of(key, len(self.folds)), key, pack(effect.letter))

    def user(self, external_id: str) -> User:
        """The row of a user who must exist."""
        user = self.rows[partition_of(external_id.encode(), len(self.folds))].get(external_id)
        assert user is not None
        return user

    @property
    def changes(self) -> list[SegmentChange]:
        return [effect for effect in self.effects if isinstance(effect, SegmentChange)]

    @property
    def sends(self) -> list[Send]:
        return [effect for effect in self.effects if isinstance(effect, Send)]

    @property
    def currents(self) -> list[CurrentsRecord]:
        return [effect for effect in self.effects if isinstance(effect, CurrentsRecord)]

    @property
    def messages(self) -> list[CurrentsRecord]:
        """The records of what became of messages."""
        return [each for each in self.currents if each.event_type.startswith("users.messages.")]


def fold_record(fold: Fold, record: Record) -> None:
    """Apply one mailbox record: every timer due by its time first, then the letter."""
    letter = decode_letter(record.value)
    now_ms = fold.time_of(letter, record.append_ms)
    while fold.fire_next(now_ms):
        pass
    fold.apply(record.key or b"", record.value, letter, now_ms)
