"""A scheduled campaign reaches exactly those who are in its audience at its moment, however long it takes.

The histories, workspaces and the model that knows everything from the beginning are those of
`test_membership_property`; who is a member at the moment is asked of the model, user by user.
"""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.codec import pack
from streams.definitions import read_definitions
from streams.mailbox import FanStep, Outcome, Tick
from streams.mailbox import Step as ScanStep
from streams.outputs import to_outputs
from streams.times import format_time
from tests.driver import Driver
from tests.streams.segments.test_membership_property import (
    START_MS,
    Input,
    Model,
    Step,
    Tree,
    all_steps,
    send,
    target_ms,
    trees,
    workspaces,
)
from tests.streams.test_scans import Change, changes, stored_again

LOG: dict[str, Any] = {"channel": "log", "message": {"text": "hi"}}


class Cast(NamedTuple):
    """A campaign to an audience, so long after the start, and whether it may go to the same user again."""

    name: str
    after_ms: int
    audience: Tree


class Point(NamedTuple):
    """Behind the `at`-th step, decide the users up to a key, or all."""

    at: int
    to: str | None


def files_of(segments: dict[str, Tree], casts: list[Cast]) -> dict[str, Any]:
    """Segments, and campaigns that come round at their times."""
    files: dict[str, Any] = {f"segments/{name}.yaml": {"name": name, "filter": tree} for name, tree in segments.items()}
    for cast in casts:
        at = format_time(START_MS + cast.after_ms)
        files[f"campaigns/{cast.name}.yaml"] = {
            "name": cast.name,
            "schedule": {"at": at},
            "audience": cast.audience,
            **LOG,
        }
    return files


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[str, Tree], list[Cast]]:
    """Segments, and up to three campaigns whose audiences are built of them."""
    segments = draw(workspaces())
    times = draw(st.lists(st.integers(1, 12_000), min_size=1, max_size=3))
    return segments, [Cast(f"c{at}", ms, draw(trees(list(segments)))) for at, ms in enumerate(times)]


points = st.lists(st.builds(Point, st.integers(0, 14), st.sampled_from(["a", "ann", "az", "bob", None])), max_size=5)


class Show:
    """A driver that plays steps, and what the model says must be sent by what has happened so far."""

    def __init__(self, segments: dict[str, Tree], casts: list[Cast]) -> None:
        self.driver = Driver(files_of(segments, casts))
        self.model = Model(segments, START_MS)
        self.casts = casts
        self.expected: set[tuple[str, str]] = set()
        self.driver.now_ms = START_MS
        self.driver.deliver(0, None, Tick(START_MS))

    def play(self, steps: list[Step], points: list[Point], turns: list[Change] | None = None) -> None:
        """Play the steps, with steps of fan-outs and of scans and changes of segments between them, to the end."""
        for at, step in enumerate(steps):
            for turn in [turn for turn in turns or () if turn.at == at]:
                self.change(turn)
            self.take(step)
            if at % 3 == 0:  # an outcome that changes nothing touches the row
                self.driver.deliver(0, step.user.encode(), Outcome("none", 1, "sent", self.driver.now_ms))
            for point in points:
                if point.at == at:
                    self.step(point.to)
        self.foresee(self.model.now_ms + 60_000)
        self.driver.advance(60_000)
        while self.driver.folds[0].position.open_scan is not None:
            self.scan(None)
        while self.driver.folds[0].position.fanouts:
            self.step(None)

    def take(self, step: Step) -> None:
        """One step of the history, in the driver and in the model."""
        now_ms = target_ms(self.model, step)
        self.foresee(now_ms)
        self.driver.now_ms = self.model.now_ms = now_ms
        if step.kind == "tick":
            self.driver.advance(0)
            return
        send(self.driver, step, now_ms - step.late_ms)
        self.model.inputs.append(Input(step.kind, step.user, min(now_ms, now_ms - step.late_ms), step.value))

    def foresee(self, now_ms: int) -> None:
        """Ask the model about every user, at each moment of a campaign that is reached by a time."""
        for cast in self.casts:
            at_ms = START_MS + cast.after_ms
            if self.model.now_ms < at_ms <= now_ms:
                users = {one.user for one in self.model.inputs}
                self.expected |= {(cast.name, user) for user in users if self.model.holds(cast.audience, user, at_ms)}

    def step(self, to: str | None) -> None:
        """A step of each fan-out, twice, since a repeated one must change nothing."""
        for fanout in list(self.driver.folds[0].position.fanouts):
            letter = FanStep(fanout.number, fanout.cursor, to)
            self.driver.deliver(0, None, letter)
            self.driver.deliver(0, None, letter)

    def scan(self, to: str | None) -> None:
        """A step of the scan that is open, if one is."""
        scan = self.driver.folds[0].position.open_scan
        if scan is not None:
            self.driver.deliver(0, None, ScanStep(scan.version, scan.cursor, to))

    def change(self, turn: Change) -> None:
        """Go over to other segments, with the campaigns as they are."""
        if turn.segments is not None:
            self.driver.switch(read_definitions(files_of({**self.model.segments, **turn.segments}, self.casts)))

    @property
    def sent(self) -> Counter[tuple[str, str]]:
        """Each campaign's users, and how often."""
        return Counter((one.campaign, one.user) for one in self.driver.sends)


@settings(max_examples=150)
@given(worlds(), all_steps, points)
def test_who_is_a_member_at_the_moment_gets_it_once(
    world: tuple[dict[str, Tree], list[Cast]], steps: list[Step], points: list[Point]
) -> None:
    """Events, timers and steps in any order: each member of the moment gets it once, and nobody else."""
    show = Show(*world)
    show.play(steps, points)

    assert show.sent == Counter(show.expected)
    assert all(one.lane == "bulk" for one in show.driver.sends)
    assert all(one.decided_ms >= START_MS + show.casts[int(one.campaign[1:])].after_ms for one in show.driver.sends)


@settings(max_examples=80)
@given(worlds(), all_steps, changes, points, points)
def test_when_users_are_decided_does_not_matter(
    world: tuple[dict[str, Tree], list[Cast]],
    steps: list[Step],
    turns: list[Change],
    points: list[Point],
    others: list[Point],
) -> None:
    """With definitions that change meanwhile, and their scans, two paces send to the same users."""
    shows = []
    for pace in (points, others):
        show = Show(*world)
        show.play(steps, pace, turns)
        shows.append(show)

    assert shows[0].sent == shows[1].sent
    assert max(shows[0].sent.values(), default=1) == 1
    users = sorted(shows[0].driver.rows[0].stored)
    memberships = [[show.driver.user(user).memberships for user in users] for show in shows]
    assert memberships[0] == memberships[1]


@settings(max_examples=25)
@given(worlds(), all_steps, changes, points, st.sampled_from([1, 2, 7, 99]), st.sets(st.integers(0, 30), max_size=3))
def test_slices_and_restarts_do_not_matter(
    world: tuple[dict[str, Tree], list[Cast]],
    steps: list[Step],
    turns: list[Change],
    points: list[Point],
    cut: int,
    restarts: set[int],
) -> None:
    """A real store, cut anywhere and reopened anywhere, ends with the bytes of the plain fold."""
    show = Show(*world)
    show.play(steps, points, turns)
    driver = show.driver
    with TemporaryDirectory() as folder:
        rows, position, outputs = stored_again(driver, Path(folder), cut, restarts)

    assert rows == driver.rows[0].stored
    assert position == pack(driver.folds[0].position)
    assert outputs == repr(to_outputs(driver.effects, 0))


# ---- pausing, cancelling, changing

LIKED: Tree = {"event": {"name": "like"}}
USERS = [f"u{at:02}" for at in range(40)]


@pytest.fixture
def show() -> Show:
    """Forty users, all of them in the audience of a campaign whose fan-out is open; nobody is decided."""
    show = Show({}, [Cast("c0", 5_000, LIKED)])
    for user in USERS:
        show.driver.send({"type": "event", "name": "like", "external_id": user})
    show.driver.advance(5_000)
    assert show.driver.folds[0].position.fanouts
    return show


def test_after_a_cancel_nothing_is_sent(show: Show) -> None:
    """Half are decided, then the switch with the cancelling comes: those are all, whatever is touched or stepped."""
    show.step("u19")
    newest = show.driver.definitions[-1]
    plan = show.driver.workspaces[0].campaigns["c0"].plan
    assert plan is not None
    show.driver.send({"type": "event", "name": "like", "external_id": "u30"})
    show.driver.switch(msgspec.structs.replace(newest, cancelled={"c0": [plan.digest]}))
    show.driver.deliver(0, None, FanStep(1, "u19", None))
    show.driver.send({"type": "event", "name": "like", "external_id": "u30"})
    show.driver.advance(60_000)

    assert [one.user for one in show.driver.sends] == USERS[:20]
    last = show.driver.folds[0].position.plans["c0"].last
    assert last is not None
    assert (last.state, last.rows, last.entered) == ("cancelled", 20, 20)


def test_a_pause_holds_and_a_resume_goes_on(show: Show) -> None:
    """Nothing is sent while it is paused; then those go on who were members at the moment, touched or not."""
    show.step("u09")
    show.driver.pause("c0")
    show.step(None)
    show.driver.send({"type": "event", "name": "like", "external_id": "u30"})
    show.driver.send({"type": "event", "name": "like", "external_id": "new"})
    assert len(show.driver.sends) == 10
    show.driver.pause()
    show.step(None)

    assert [one.user for one in show.driver.sends] == USERS


def test_a_campaign_that_is_paused_at_its_moment_is_missed() -> None:
    """Its occurrence does not come later, when it is resumed."""
    show = Show({}, [Cast("c0", 5_000, LIKED)])
    show.driver.send({"type": "event", "name": "like", "external_id": "u"})
    show.driver.pause("*")
    show.driver.advance(5_000)
    show.driver.pause()
    show.step(None)
    show.driver.advance(60_000)

    assert show.driver.sends == []
    assert show.driver.folds[0].position.plans["c0"].missed == 1


def test_the_audience_is_of_the_moment_and_the_message_of_now(show: Show) -> None:
    """A change amid it does not change who gets it; the sends to come say the new version."""
    show.step("u19")
    files = files_of({}, [Cast("c0", 5_000, {"event": {"name": "never"}})])
    show.driver.switch(read_definitions(files))
    show.step(None)

    assert [(one.user, one.version) for one in show.driver.sends] == [(user, int(user > "u19")) for user in USERS]


def test_a_campaign_that_is_gone_ends(show: Show) -> None:
    """Of a campaign that the definitions have no more nothing is decided."""
    show.driver.switch(read_definitions({}))
    show.step(None)

    assert show.driver.sends == []
    assert show.driver.folds[0].position.fanouts == []
    assert show.driver.folds[0].position.plans == {}


def test_a_user_who_unsubscribes_meanwhile_gets_no_mail() -> None:
    """Who is in the audience is of the moment; consent is of now."""
    at = format_time(START_MS + 5_000)
    mail = {"to": "{{ ${email_address} }}", "subject": "s", "text": "t"}
    files = {"campaigns/c0.yaml": {"name": "c0", "schedule": {"at": at}, "channel": "email", "message": mail}}
    driver = Driver(files)
    for user in ("ann", "bob"):
        driver.send({"type": "attributes", "external_id": user, "email": f"{user}@example.com"})
    driver.advance(5_000)
    driver.send({"type": "attributes", "external_id": "ann", "email_subscribe": "unsubscribed"})
    driver.deliver(0, None, FanStep(1, "", None))

    assert [one.user for one in driver.sends] == ["bob"]
