"""Mailbox partitions that progress apart from each other: slices of any size, commits, and crashes before them."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec

from streams.codec import pack, partition_of, to_json
from streams.definitions import read_definitions
from streams.effects import Effect, Post
from streams.engagement import SigningKeys
from streams.fold import ClockMode, Fold
from streams.intake import route
from streams.mailbox import Outcome, Switch, Tick
from streams.outputs import to_outputs
from streams.positions import Position
from streams.profiles.row import User
from streams.records import Output, Record
from streams.workspace import Workspace, compile_workspace
from tests.driver import MemoryRows, fold_record

START_MS = 1_700_000_000_000


class Partition:
    """One partition as last committed: rows, position, and the mailbox that they stand for."""

    def __init__(self) -> None:
        self.rows = MemoryRows()
        self.position = pack(Position())
        self.mailbox: list[Record] = []

    @property
    def next_offset(self) -> int:
        return int(msgspec.msgpack.decode(self.position, type=Position).next_offset)


class Mailboxes:
    """Intake and the folds of several partitions; nothing moves but by `work`, `crash` and what appends."""

    def __init__(
        self, files: dict[str, Any], partitions: int, clock: ClockMode = "wall", *more: dict[str, Any]
    ) -> None:
        self.now_ms = START_MS
        self.clock: ClockMode = clock
        self.keys: SigningKeys = ()
        self.workspaces: dict[int, Workspace] = {}
        for version, each in enumerate((files, *more)):
            self.workspaces[version] = compile_workspace(read_definitions(each), version)
        self.workspaces[-1] = compile_workspace(read_definitions({}), -1)
        self.partitions = [Partition() for _ in range(partitions)]
        self.effects: list[Effect] = []
        self.outputs: list[Output] = []
        self.dead: list[Output] = []
        self._events = [0] * partitions
        self.switch(0)
        self.settle()

    def switch(self, version: int) -> None:
        for partition in range(len(self.partitions)):
            self.append(Output("mailbox", partition, None, pack(Switch(version))))

    def append(self, output: Output) -> None:
        mailbox = self.partitions[output.partition].mailbox
        mailbox.append(Record(len(mailbox), self.now_ms, output.key, output.value))

    def send(self, value: dict[str, Any], *, twice: bool = False) -> None:
        """Put a record into the events topic, routed at once; `twice` as by an intake that crashed and went on."""
        user = value["external_id"] if "device_id" not in value else f"device:{value['device_id']}"
        key = user.encode()
        partition = partition_of(key, len(self.partitions))
        record = Record(self._events[partition], self.now_ms, key, to_json(value))
        self._events[partition] += 1
        for _ in range(1 + twice):
            for output in route(record, "events", partition, len(self.partitions), self.clock, self.keys):
                if output.topic == "mailbox":
                    self.append(output)
                else:
                    self.dead.append(output)

    def outcome(self, user: str, outcome: Outcome) -> None:
        key = user.encode()
        self.append(Output("mailbox", partition_of(key, len(self.partitions)), key, pack(outcome)))

    def tick(self, at_ms: int) -> None:
        self.now_ms = max(self.now_ms, at_ms)
        for partition in range(len(self.partitions)):
            self.append(Output("mailbox", partition, None, pack(Tick(at_ms))))

    def behind(self, at: int) -> int:
        partition = self.partitions[at]
        return len(partition.mailbox) - partition.next_offset

    def work(self, at: int, count: int = 10**9, fold_one: Callable[[Fold, Record], None] = fold_record) -> None:
        """Fold up to so many records, and commit them with what they give."""
        partition = self.partitions[at]
        fold = self._fold(partition)
        for record in partition.mailbox[partition.next_offset :][:count]:
            fold.position.next_offset = record.offset
            fold_one(fold, record)
        effects = fold.take_effects()
        partition.rows, partition.position = fold.rows, pack(fold.position)  # type: ignore[assignment]
        self.effects += effects
        for output in to_outputs(effects, at, len(self.partitions)):
            if output.topic == "mailbox":
                self.append(output)
            else:
                self.outputs.append(output)

    def crash(self, at: int, count: int) -> None:
        """Fold up to so many records, and die before the commit."""
        partition = self.partitions[at]
        fold = self._fold(partition)
        for record in partition.mailbox[partition.next_offset :][:count]:
            fold_record(fold, record)

    def _fold(self, partition: Partition) -> Fold:
        position = msgspec.msgpack.decode(partition.position, type=Position)
        return Fold(deepcopy(partition.rows), position, self.clock, self.workspaces.__getitem__)

    def settle(self, turns_max: int = 4) -> None:
        """Work until nobody is behind; letters between users go one way, so that takes few turns."""
        for _ in range(turns_max):
            for at in range(len(self.partitions)):
                if self.behind(at):
                    self.work(at)
        assert not any(self.behind(at) for at in range(len(self.partitions))), "letters go round in a circle"

    def user(self, key: str) -> User | None:
        return self.partitions[partition_of(key.encode(), len(self.partitions))].rows.get(key)

    def total(self, name: str) -> int:
        positions = [msgspec.msgpack.decode(each.position, type=Position) for each in self.partitions]
        return sum(int(getattr(position.totals, name)) for position in positions)

    @property
    def posts(self) -> list[Post]:
        return [effect for effect in self.effects if isinstance(effect, Post)]
