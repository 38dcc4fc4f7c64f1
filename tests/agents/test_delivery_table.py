"""The table of dispatches against a model: nothing lost, nothing taken twice, first in first out in each lane."""

import random
from collections import Counter
from pathlib import Path

import pytest

from streams.errors import BadState
from streams.sends import LANES, Lane
from tables import dispatches
from tables.dispatches import FINAL, PAGE, Dispatch, Dispatches, State
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
        self.taken: list[Dispatch] = []
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

    def record(self, step: int) -> None:
        """Some new sends, a few of which end at once."""
        moves: list[tuple[Dispatch, State]] = []
        for at in range(self.dice.randint(1, 5)):
            channel, host = self.dice.choice(["email", "webhook"]), self.dice.choice(HOSTS)
            lane = self.dice.choice(LANES)
            name = f"{step:016x}{at:016x}"
            dispatch = Dispatch(name, "c", channel, "u", 0, 0, request=b"bytes", host=host, kind=lane)
            moves.append((dispatch, self.dice.choice(["pending", "pending", "aborted"])))
        self.move(moves)

    def take(self) -> None:
        """Take what a pump with some room would, and see that it is what has waited longest."""
        channel, limit = self.dice.choice(["email", "webhook"]), self.dice.randint(1, 6)
        kind: Lane = self.dice.choice(LANES)
        room = {"a": 1, "bulk/a": 2}
        elsewhere = self.dice.randint(0, 3)
        found = self.table.take(channel, kind, lambda lane: room.get(lane, elsewhere), limit)
        per_lane = Counter(each.lane for each in found)
        assert len(found) <= limit
        assert all(count <= room.get(lane, elsewhere) for lane, count in per_lane.items())
        mine = [key for key in self.queues if key[0] == channel and key[1].startswith("bulk/") == (kind == "bulk")]
        if elsewhere and any(self.queues[key] for key in mine):
            assert found
        assert all(each.kind == kind for each in found)
        for each in found:
            assert self.queues[channel, each.lane].pop(0) == each.dispatch_id
            assert each.request == b"bytes"
        self.taken += found
        self.move([(each, "attempting") for each in found])

    def end(self) -> None:
        """Let some attempts end."""
        self.dice.shuffle(self.taken)
        ends = [self.taken.pop() for _ in range(min(len(self.taken), 4))]
        self.move([(each, self.dice.choice(["sent", "failed", "held", "retry"])) for each in ends])

    def wait(self) -> None:
        """Let time pass, make due retries pending, and decide about a held one."""
        self.now_ms += self.dice.randint(1, 3_000)
        for lane in LANES:
            while due := self.table.due(lane, self.now_ms, 2):
                assert all(each.kind == lane for each in due)
                self.move([(each, "pending") for each in due])
        assert not any(each.state == "retry" and each.due_ms <= self.now_ms for each in self.known.values())
        held = self.table.open(self.table.held("", 1))
        self.move([(each, self.dice.choice(["pending", "aborted"])) for each in held])

    def sweep(self) -> None:
        """Forget what has been final for two seconds."""
        before_ms = self.now_ms - 2_000
        while keys := self.table.expired(before_ms, 3):
            batch = self.store.batch()
            self.table.forget(batch, keys)
            self.store.write(batch)
        old = {name for name, ended_ms in self.ended_ms.items() if ended_ms <= before_ms}
        assert self.table.known(list(self.known)) == set(self.known) - old

    def check(self) -> None:
        counts = Counter(each.state for each in self.known.values())
        found: Counter[str] = Counter()
        for by_state in self.table.counts.values():
            found.update(by_state)
        assert +found == counts
        assert sorted(self.table.attempting) == sorted(
            name for name, each in self.known.items() if each.state == "attempting"
        )
        held = sorted(name for name, each in self.known.items() if each.state == "held")
        assert [each.dispatch_id for each in self.table.all("held")] == held
        for channel in ("email", "webhook"):
            for lane in LANES:
                waiting = [
                    each
                    for each in self.known.values()
                    if (each.state, each.channel, each.kind) == ("pending", channel, lane)
                ]
                assert self.table.waiting(channel, lane) == len(waiting)
                assert (self.table.oldest_ms(channel, lane) is None) == (not waiting)
        assert self.table.running == sum(counts[state] for state in ("pending", "attempting", "retry"))


@pytest.mark.parametrize("seed", range(8))
def test_the_table_keeps_what_a_model_keeps(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through random moves, restarts and time, lanes, retries, held ones, counts and expiries are those of a model."""
    monkeypatch.setattr(dispatches, "LANES_MAX", 3)  # so that hosts share a lane too
    dice = random.Random(seed)
    bench = Bench(tmp_path, dice)
    for step in range(400):
        kinds = ["record"] * 6 + ["take"] * 6 + ["end"] * 4 + ["wait"] * 2 + ["reopen", "sweep"]
        kind = dice.choice(kinds)
        if kind == "record":
            bench.record(step)
        else:
            getattr(bench, kind)()
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
        assert [each.dispatch_id for each in table.take("email", "transactional", lambda lane: 9, 9)] == names[:1]
        assert [each.dispatch_id for each in table.due("transactional", 9, 9)] == names[1:2]
        assert table.held("", 9) == names[2:3]
        assert len(table.expired(9, 9)) == 1
        assert len(list(table.all())) == 4
    store.close()


def test_pages_are_small_and_leave_nothing_out(tmp_path: Path) -> None:
    """Whatever is asked for, a look through many dispatches comes in pages of bounded work, and loses none."""
    store = Store(tmp_path / "db")
    table, batch = Dispatches(store, 1), store.batch()
    states: tuple[State, ...] = ("sent", "held", "pending", "failed")
    for at in range(4 * PAGE):
        table.move(batch, Dispatch(f"{at:032x}", "c", "email", "u", 0, 0), states[at % 4], 5, 6)
    Dispatches(store, 2).move(batch, Dispatch("f" * 32, "c", "email", "u", 0, 0), "sent", 5)
    table.stage_tally(batch)
    store.write(batch)
    table.publish()
    for wanted in ("", *states):
        pages = list(table.pages(wanted))
        names = [int(each.dispatch_id, 16) for page in pages for each in page]
        assert sorted(names) == [at for at in range(4 * PAGE) if wanted in ("", states[at % 4])]
        assert max(map(len, pages)) <= PAGE
    assert len(list(table.pages("failed"))) == 4  # open ones too are looked through a page at a time
    store.close()


def test_what_comes_due_before_its_commit_is_found_after_it(tmp_path: Path) -> None:
    """A retry, or an end, that is looked for between its staging and its commit is not passed over for ever."""
    store = Store(tmp_path / "db")
    table = Dispatches(store, 0)
    batch = store.batch()
    table.move(batch, Dispatch("1" * 32, "c", "email", "u", 0, 0), "retry", 5, 10)
    table.move(batch, Dispatch("2" * 32, "c", "email", "u", 0, 0), "sent", 5)
    assert table.due("transactional", 20, 9) == []
    assert table.expired(20, 9) == []
    table.stage_tally(batch)
    store.write(batch)
    table.publish()

    assert [each.dispatch_id for each in table.due("transactional", 21, 9)] == ["1" * 32]
    assert len(table.expired(21, 9)) == 1
    store.close()
