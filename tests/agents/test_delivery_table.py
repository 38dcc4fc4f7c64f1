"""The table of dispatches against a model: nothing lost, nothing taken twice, first in first out in each lane."""

import random
from collections import Counter
from pathlib import Path

import pytest

from streams.errors import BadState
from tables import dispatches
from tables.dispatches import FINAL, Dispatch, Dispatches, State
from tables.store import Store

HOSTS = ["", "a", "b.example:80", "[::1]", "a!"]


class Bench:
    """A table and what a plain model says of it."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.store = Store(folder / "db")
        self.dice = dice
        self.now_ms = 1_000_000
        self.known: dict[str, Dispatch] = {}
        self.queues: dict[tuple[str, str], list[str]] = {}
        self.ended_ms: dict[str, int] = {}
        self.reopen()

    def reopen(self) -> None:
        """As a restart finds it; what was taken and not moved is pending again."""
        self.table = Dispatches(self.store, 3)
        for _ in self.table.load():
            pass
        self.queues = {}
        pending = [each for each in self.known.values() if each.state == "pending"]
        for each in sorted(pending, key=lambda each: each.seq):
            self.queues.setdefault((each.channel, each.lane), []).append(each.dispatch_id)

    def move(self, moves: list[tuple[Dispatch, State]]) -> None:
        """One commit."""
        batch = self.store.batch()
        for dispatch, state in moves:
            self.table.move(batch, dispatch, state, self.now_ms, self.now_ms + self.dice.randint(1, 5_000))
            self.known[dispatch.dispatch_id] = dispatch
            if state in FINAL:
                self.ended_ms[dispatch.dispatch_id] = self.now_ms
        self.table.stage_tally(batch)
        self.store.write(batch)
        self.table.publish()
        for dispatch, state in moves:
            if state == "pending":
                self.queues.setdefault((dispatch.channel, dispatch.lane), []).append(dispatch.dispatch_id)

    def check(self) -> None:
        counts = Counter(each.state for each in self.known.values())
        counts.update({state: 0 for state in counts})
        found: Counter[str] = Counter()
        for by_state in self.table.counts.values():
            found.update(by_state)
        assert +found == +counts
        assert sorted(self.table.attempting) == sorted(
            name for name, each in self.known.items() if each.state == "attempting"
        )
        held = sorted(name for name, each in self.known.items() if each.state == "held")
        assert [each.dispatch_id for each in self.table.all("held")] == held
        assert self.table.running == sum(counts[state] for state in ("pending", "attempting", "retry"))


@pytest.mark.parametrize("seed", range(8))
def test_the_table_keeps_what_a_model_keeps(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through random moves, restarts and time, lanes, retries, held ones, counts and expiries are those of a model."""
    monkeypatch.setattr(dispatches, "LANES_MAX", 3)  # so that hosts share a lane too
    dice = random.Random(seed)
    bench = Bench(tmp_path, dice)
    taken: list[Dispatch] = []
    for step in range(400):
        what = dice.random()
        if what < 0.3:
            fresh = [
                Dispatch(f"{step:016x}{at:016x}", "c", dice.choice(["email", "webhook"]), "u", 0, 0)
                for at in range(dice.randint(1, 5))
            ]
            for each in fresh:
                each.host, each.request = dice.choice(HOSTS), b"bytes"
            bench.move([(each, dice.choice(["pending", "pending", "aborted"])) for each in fresh])
        elif what < 0.6:
            channel, room, limit = dice.choice(["email", "webhook"]), dice.randint(0, 3), dice.randint(1, 6)
            found = bench.table.take(channel, lambda lane: room if lane != "a" else 1, limit)  # noqa: B023
            assert len(found) <= limit
            per_lane = Counter(each.lane for each in found)
            assert all(count <= (room if lane != "a" else 1) for lane, count in per_lane.items())
            if room and any(queue for (name, _), queue in bench.queues.items() if name == channel):
                assert found
            for each in found:
                assert bench.queues[channel, each.lane].pop(0) == each.dispatch_id
                assert each.request == b"bytes"
            taken += found
            bench.move([(each, "attempting") for each in found])
        elif what < 0.8 and taken:
            dice.shuffle(taken)
            ends = [taken.pop() for _ in range(min(len(taken), 4))]
            bench.move([(each, dice.choice(["sent", "failed", "held", "retry"])) for each in ends])
        elif what < 0.9:
            bench.now_ms += dice.randint(1, 3_000)
            while due := bench.table.due(bench.now_ms, 2):
                bench.move([(each, "pending") for each in due])
            assert not any(each.state == "retry" and each.due_ms <= bench.now_ms for each in bench.known.values())
            names = bench.table.held("", 1)
            bench.move([(each, dice.choice(["pending", "aborted"])) for each in bench.table.open(names)])
        elif what < 0.95:
            bench.reopen()
        else:
            before_ms = bench.now_ms - 2_000
            while keys := bench.table.expired(before_ms, 3):
                batch = bench.store.batch()
                bench.table.forget(batch, keys)
                bench.store.write(batch)
            old = {name for name, ended_ms in bench.ended_ms.items() if ended_ms <= before_ms}
            assert bench.table.known(list(bench.known)) == set(bench.known) - old
        bench.check()
    assert Counter(each.state for each in bench.known.values())["sent"] > 20
    bench.store.close()


def test_a_final_state_is_never_replaced(tmp_path: Path) -> None:
    """Moving a dispatch that has ended is a defect, and raises before anything is written."""
    store = Store(tmp_path / "db")
    table = Dispatches(store, 0)
    for state in FINAL:
        dispatch = Dispatch("0" * 32, "c", "email", "u", 0, 0)
        table.move(store.batch(), dispatch, state, 0)
        for other in ("pending", "sent", "aborted", "failed", "held"):
            with pytest.raises(BadState):
                table.move(store.batch(), dispatch, other, 0)
    store.close()


def test_partitions_do_not_see_each_other(tmp_path: Path) -> None:
    """What waits, is due or has ended in one partition is not found in another, 255 and 256 among them."""
    store = Store(tmp_path / "db")
    tables = [Dispatches(store, partition) for partition in (0, 1, 255, 256, 1023)]
    for at, table in enumerate(tables):
        batch = store.batch()
        states: tuple[State, ...] = ("pending", "retry", "held", "sent")
        for kind, state in enumerate(states):
            table.move(batch, Dispatch(f"{at * 10 + kind:032x}", "c", "email", "u", 0, 0), state, 5, 6)
        table.stage_tally(batch)
        store.write(batch)
        table.publish()
    for at, partition in enumerate((0, 1, 255, 256, 1023)):
        table = Dispatches(store, partition)
        assert len(list(table.load())) == 1
        names = [f"{at * 10 + kind:032x}" for kind in range(4)]
        assert [each.dispatch_id for each in table.take("email", lambda lane: 9, 9)] == names[:1]
        assert [each.dispatch_id for each in table.due(9, 9)] == names[1:2]
        assert table.held("", 9) == names[2:3]
        assert len(table.expired(9, 9)) == 1
        assert len(list(table.all())) == 4
    store.close()
