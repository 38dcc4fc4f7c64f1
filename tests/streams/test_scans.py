"""A definition over existing users: rows come out as if all had been decided in the instant of the switch.

The histories, workspaces and the model that knows everything from the beginning are those of
`test_membership_property`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import pack
from streams.definitions import Definitions, read_definitions
from streams.effects import CurrentsRecord, Effect
from streams.fold import Fold
from streams.mailbox import Outcome, Tick
from streams.mailbox import Step as ScanStep
from streams.outputs import to_outputs
from streams.profiles.row import User, decode_row
from tables.partition import PartitionState
from tables.store import Store
from tests.driver import Driver, fold_record
from tests.streams.segments.test_membership_property import (
    START_MS,
    Input,
    Model,
    Step,
    Tree,
    all_steps,
    send,
    target_ms,
    workspaces,
)

USERS = ("ann", "bob")


def files_of(segments: dict[str, Tree]) -> dict[str, Any]:
    """The segments as files, and campaigns on entering, leaving and doing, some with a delay and an audience."""
    files: dict[str, Any] = {f"segments/{name}.yaml": {"name": name, "filter": tree} for name, tree in segments.items()}
    for name in segments:
        for word in ("entered", "left"):
            campaign = {"name": f"{word}_{name}", "trigger": {f"segment_{word}": name}, "re_eligible_after": "1s"}
            files[f"campaigns/{word}_{name}.yaml"] = {**campaign, "delay": "1s" if word == "left" else "0s"}
    audience = {"event": {"name": "like", "at_least": 2, "within": "2s"}}
    liked = {"name": "liked", "trigger": {"event": {"name": "look"}}, "audience": audience, "re_eligible_after": "0s"}
    files["campaigns/liked.yaml"] = liked
    for name, document in files.items():
        if name.startswith("campaigns/"):
            document.update(channel="log", message={"text": "hi"})
    return files


def user_of(effect: Effect) -> str:
    """Whom an effect is about."""
    return str(effect.fields["external_user_id"]) if isinstance(effect, CurrentsRecord) else effect.user


@dataclass
class Run:
    """A driver under the wall clock, and what a test does with it."""

    driver: Driver

    def play(self, step: Step, now_ms: int) -> None:
        self.driver.now_ms = now_ms
        if step.kind == "tick":
            self.driver.advance(0)
        else:
            send(self.driver, step, now_ms - step.late_ms)

    def scan(self, to: str | None) -> None:
        """One step of the scan that is open, from where it is."""
        scan = self.driver.folds[0].position.open_scan
        if scan is not None:
            self.driver.deliver(0, None, ScanStep(scan.version, scan.cursor, to))

    def touch(self, user: str) -> None:
        """Tell an outcome that changes nothing: which sends are decided by now does depend on the scan."""
        self.driver.deliver(0, user.encode(), Outcome("none", 1, "sent", self.driver.now_ms))

    def told(self) -> dict[str, Any]:
        """Everything that must not depend on when rows were scanned."""
        driver = self.driver
        totals = msgspec.to_builtins(driver.folds[0].position.totals)
        users = sorted(driver.rows[0].stored)
        effects = {user: [repr(one) for one in driver.effects if user_of(one) == user] for user in users}
        return {"rows": driver.rows[0].stored, "due": driver.rows[0].due, "totals": totals, "effects": effects}


@dataclass(frozen=True)
class Change:
    """Before the `at`-th step, go over to these segments, or pause everything or nothing."""

    at: int
    segments: dict[str, Tree] | None
    paused: bool = False


changes = st.lists(
    st.one_of(
        st.builds(Change, st.integers(0, 14), workspaces()),
        st.builds(Change, st.integers(0, 14), st.none(), st.booleans()),
    ),
    min_size=1,
    max_size=4,
)
scan_points = st.lists(st.tuples(st.integers(0, 14), st.sampled_from(["a", "ann", "az", "bob"])), max_size=4)


def replay(segments: dict[str, Tree], steps: list[Step], turns: list[Change], scan: Callable[[Run, int], None]) -> Run:
    """Play the steps with the changes between them; `scan` is called after each change and each step."""
    run, model = Run(Driver(files_of(segments))), Model(segments, START_MS)
    run.driver.now_ms = START_MS
    run.driver.deliver(0, None, Tick(START_MS))
    for at, step in enumerate(steps):
        for turn in [turn for turn in turns if turn.at == at]:
            switch(run.driver, turn)
            scan(run, at)
        now_ms = target_ms(model, step)
        run.play(step, now_ms)
        model.now_ms = now_ms
        model.inputs.append(Input(step.kind, step.user, now_ms - step.late_ms, step.value))
        if at % 3 == 0:
            run.touch(step.user)
        scan(run, at)
    run.driver.advance(1_500)
    while run.driver.folds[0].position.open_scan is not None:
        run.scan(None)
    run.driver.advance(60_000)
    return run


def switch(driver: Driver, turn: Change) -> None:
    """Let the driver go over to what the change says; what is paused stays paused."""
    newest = driver.definitions[-1]
    if turn.segments is None:
        driver.switch(msgspec.structs.replace(newest, paused=["*"] if turn.paused else []))
    else:
        fresh: Definitions = read_definitions(files_of(turn.segments))
        driver.switch(msgspec.structs.replace(fresh, paused=newest.paused))


def at_once(run: Run, at: int) -> None:
    """Scan everything as soon as there is something to scan."""
    run.scan(None)


@settings(max_examples=120)
@given(workspaces(), all_steps, changes, scan_points)
def test_when_a_row_is_scanned_does_not_matter(
    segments: dict[str, Tree], steps: list[Step], turns: list[Change], points: list[tuple[int, str]]
) -> None:
    """Rows, timers, totals and each user's effects are those of a scan that takes no time, to the byte."""

    def slowly(run: Run, at: int) -> None:
        for when, to in points:
            if when == at:
                run.scan(to)

    assert replay(segments, steps, turns, slowly).told() == replay(segments, steps, turns, at_once).told()


def stored_again(driver: Driver, folder: Path, cut: int, restarts: set[int]) -> tuple[dict[str, bytes], bytes, str]:
    """Fold the driver's mailbox over a real store, committing every `cut` records and amid steps, with restarts."""
    store = Store(folder)
    state = PartitionState(store, 0)
    fold = Fold(state, state.position, "wall", driver.workspaces.__getitem__)
    effects: list[Effect] = []

    def commit() -> None:
        batch = store.batch()
        state.stage(batch)
        store.write(batch)
        effects.extend(fold.take_effects())

    for number, record in enumerate(driver.mailboxes[0]):
        fold_record(fold, record)
        if number % cut == 0 or number in restarts:
            commit()
        if number in restarts:
            state = PartitionState(store, 0)
            fold = Fold(state, state.position, "wall", driver.workspaces.__getitem__)
    commit()
    rows = {key[2:].decode(): value for key, value in store.scan("users", b"", b"\xff")}
    told = rows, pack(state.position), repr(to_outputs(effects, 0))
    store.close()
    return told


@settings(max_examples=25)
@given(
    workspaces(),
    all_steps,
    changes,
    scan_points,
    st.sampled_from([1, 2, 7, 99]),
    st.sets(st.integers(0, 20), max_size=3),
)
def test_slices_and_restarts_do_not_matter(
    segments: dict[str, Tree],
    steps: list[Step],
    turns: list[Change],
    points: list[tuple[int, str]],
    cut: int,
    restarts: set[int],
) -> None:
    """A real store, cut anywhere and reopened anywhere, ends with the bytes of the plain fold."""

    def slowly(run: Run, at: int) -> None:
        for when, to in points:
            if when == at:
                run.scan(to)

    driver = replay(segments, steps, turns, slowly).driver
    with TemporaryDirectory() as folder:
        rows, position, outputs = stored_again(driver, Path(folder), cut, restarts)
    assert rows == driver.rows[0].stored
    assert position == pack(driver.folds[0].position)
    assert outputs == repr(to_outputs(driver.effects, 0))


def unsure(node: Any) -> bool:  # noqa: ANN401  # an explanation is JSON
    """Whether any part of an explanation says that it is not exact."""
    if isinstance(node, list):
        return any(unsure(part) for part in node)
    if not isinstance(node, dict):
        return False
    return node.get("error", "exact") != "exact" or any(unsure(part) for part in node.values())


def sure_segments(driver: Driver, user: User, now_ms: int) -> list[str]:
    """The segments whose explanation claims to be exact, and those of all that they refer to."""
    found: list[str] = []
    for segment in driver.folds[0].workspace.segments:
        predicate = segment.predicate
        if not unsure(predicate.explain(user, now_ms)) and all(name in found for name in predicate.segments):
            found.append(segment.name)
    return found


several_steps = st.tuples(all_steps, all_steps).map(lambda parts: [step for part in parts for step in part])


@settings(max_examples=200)
@given(workspaces(), workspaces(), several_steps, several_steps, st.integers(0, 6))
def test_what_explain_calls_exact_is_exact(
    segments: dict[str, Tree], others: dict[str, Tree], before: list[Step], after: list[Step], lag: int
) -> None:
    """After a change of workspace each user is in every segment that is called exact, or not, as from scratch."""
    driver, model = Driver(plain_files(segments)), Model(segments, START_MS)
    run = Run(driver)
    driver.now_ms = START_MS
    driver.deliver(0, None, Tick(START_MS))
    for number, step in enumerate([*before, *after]):
        if number == len(before):
            driver.switch(read_definitions(plain_files(others)))
            model.segments = others
        if number >= len(before) + lag:
            run.scan(None)
        now_ms = target_ms(model, step)
        run.play(step, now_ms)
        model.now_ms = now_ms
        if step.kind != "tick":
            model.inputs.append(Input(step.kind, step.user, min(now_ms, now_ms - step.late_ms), step.value))
        compare(driver, model, is_over=number >= len(before))


def plain_files(segments: dict[str, Tree]) -> dict[str, Any]:
    """Segments alone, so that rows keep nothing for campaigns."""
    return {f"segments/{name}.yaml": {"name": name, "filter": tree} for name, tree in segments.items()}


def compare(driver: Driver, model: Model, *, is_over: bool) -> None:
    """Hold each row that the scan has decided to the model, in the segments that are called exact."""
    position = driver.folds[0].position
    for name, row in driver.rows[0].stored.items():
        user = decode_row(row)
        if position.open_scan is not None and user.built < position.built:
            continue
        sure = sure_segments(driver, user, driver.now_ms)
        if not is_over:
            assert len(sure) == len(model.segments)  # nothing is unsure before a definition has come late
        expected = {one for one in sure if model.holds(model.segments[one], name, driver.now_ms)}
        assert {one for one in user.memberships if one in sure} == expected
        assert set(user.memberships) <= set(model.segments)
