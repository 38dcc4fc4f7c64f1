"""A mailbox partition as a fold: letters in, rows, timers and effects out, the same for the same log."""

from collections.abc import Callable
from typing import Final, Literal, Protocol

from streams import canary, identity, users
from streams.builds import Build, difference
from streams.effects import Effect, Refused
from streams.errors import BadDefinition, BadInput, BadState
from streams.events import Attributes, Engagement, Unblock
from streams.fan_steps import FanSteps
from streams.fanning import Fanning
from streams.mailbox import (
    Cause,
    Chosen,
    Consent,
    FanStep,
    Forward,
    Happening,
    Identify,
    Letter,
    MergePart,
    Outcome,
    Probe,
    Step,
    Switch,
    Tick,
)
from streams.positions import Position
from streams.profiles.row import Merged, User, new_user
from streams.relations import Relations
from streams.scans import Scan, Turn, bring_up
from streams.tally import count_effects, count_event
from streams.workspace import Workspace

ClockMode = Literal["wall", "stream"]


class Rows(Protocol):
    """The partition's rows and their due timers, as the fold sees them."""

    def get(self, user_key: str) -> User | None:
        """The user's row, owned by the caller until `put`; None for a user never seen."""

    def put(self, user_key: str, user: User, old_timer_ms: int | None) -> None:
        """Keep a changed row, and move its due entry from `old_timer_ms` to the row's `timer_ms`."""

    def next_due(self, until_ms: int) -> tuple[int, str] | None:
        """The earliest due timer at or before `until_ms` as (due, user), ties in order of user; else None."""

    def stretch(self, after: str, to: str | None, limit: int) -> list[tuple[str, User]]:
        """The first `limit` users in (after, to] and their rows, in the order of their UTF-8; None: to the last."""


AHEAD_MAX_MS: Final = 60_000
PIECE_ROWS: Final = 16
"""Rows of a scan that are decided at a time; others may work after each piece."""


class Fold:
    """Applies letters to one partition. After an exception, drop it and start from the store."""

    def __init__(
        self,
        rows: Rows,
        position: Position,
        clock: ClockMode,
        workspace_of: Callable[[int], Workspace],
        place: tuple[int, int] = (0, 1),
    ) -> None:
        """Continue at `position`.

        Args:
            rows: of the partition.
            position: where it stands.
            clock: what moves its time.
            workspace_of: the compiled workspace of a version.
            place: the partition's number, and how many there are, by which partitions share a campaign's rate.
        """
        self.rows = rows
        self.position = position
        self.effects: list[Effect] = []
        self._clock: ClockMode = clock
        self._workspace_of = workspace_of
        self._workspace = workspace_of(position.version)
        self._builds: dict[int, Build] = {}
        self.relations = Relations(self, self._row, self._keep, self._deliver)
        self.fanning = Fanning(position, workspace_of, passes_over=clock == "wall", place=place)
        self._fan_steps = FanSteps(self, self._row, self._catch_up, self._keep)

    @property
    def workspace(self) -> Workspace:
        """The workspace version in force."""
        return self._workspace

    def build_from(self, version: int) -> Build:
        """The way of a row from another workspace version, older or newer, to the one in force."""
        return difference(self._workspace_of(version), self._workspace)

    def time_of(self, letter: Letter, append_ms: int) -> int:
        """The time at which a letter is decided: the running maximum of append times, or of event times."""
        clock_ms = self.position.clock_ms
        if self._clock == "wall":
            return max(clock_ms, append_ms)
        if isinstance(letter, Tick):
            return max(clock_ms, letter.at_ms)
        if isinstance(letter, Happening) and not isinstance(letter.event, (Attributes, Unblock)):
            return max(clock_ms, letter.event.time_ms)
        if isinstance(letter, Identify):
            return max(clock_ms, letter.time_ms)
        return clock_ms

    def fire_next(self, until_ms: int) -> bool:
        """Fire the earliest timer due at or before `until_ms` at its own due time; False if there is none.

        A timer armed in the past fires at the clock. A scheduled campaign comes round behind the timers of its moment.
        """
        planned_ms = self.fanning.next_ms
        due = self.rows.next_due(min(planned_ms, until_ms))
        if due is None:
            if planned_ms > until_ms:
                return False
            self.fanning.occur(until_ms)
            return True
        due_ms, user_key = due
        user = self.rows.get(user_key)
        if user is None or user.timer_ms != due_ms:
            raise BadState(f"a timer at {due_ms} has no row that armed it; rebuild the due index")
        position = self.position
        position.clock_ms = max(position.clock_ms, due_ms)
        if self._is_behind(user):
            self._bring_up(user_key, user, due_ms)
            return True
        if user.fanned != position.fanned:
            self.fanning.touch(user, user_key)
        user.built = position.built
        position.totals.timers += 1
        effects = users.decide_timer(user, user_key, max(position.clock_ms, user.now_ms), self._workspace)
        self._keep(user_key, user, due_ms, effects)
        return True

    def apply(self, key: bytes, value: bytes, letter: Letter, now_ms: int) -> None:
        """Apply one letter at `now_ms`, after every timer due by then has fired.

        Letters whose cause is not above the highest applied one of their source are dropped: a crashed
        and repeated intake appended them twice.
        """
        position = self.position
        position.clock_ms = now_ms
        position.next_offset += 1
        if isinstance(letter, Happening):
            if self._is_above(letter.cause):
                self._happen(key.decode(), value, letter, now_ms)
        elif isinstance(letter, Outcome):
            self._outcome(key.decode(), value, letter)
        elif isinstance(letter, (Step, FanStep)):
            while self.step_next(letter, now_ms):
                pass
        elif isinstance(letter, Switch) and letter.version > position.version:
            self._switch(letter.version)
        elif isinstance(letter, Probe):
            self.effects.append(canary.send(letter, position.version, now_ms))
        elif isinstance(letter, (Identify, MergePart, Forward, Consent)):
            self._relate(key.decode(), letter, now_ms)

    def _switch(self, version: int) -> None:
        """Go over to a version; where it changes what rows are decided by, and there are any, a scan begins.

        One that cannot be compiled, which an older program let through, is passed over: what repairs it comes later.
        """
        position = self.position
        try:
            self._workspace = self._workspace_of(version)
        except BadDefinition:
            return
        turn = Turn(version, position.version, position.clock_ms, builds=False)
        position.version = version
        scan = position.open_scan
        turns = [] if scan is None else scan.turns
        turn.builds = position.totals.users > 0 and not self._build_of(turn).is_empty
        if turn.builds:
            position.built = version
            position.scan = Scan(version, position.next_offset - 1, position.clock_ms, [*turns, turn])
        elif scan is not None:
            turns.append(turn)
        self.fanning.switch()

    def _build_of(self, turn: Turn) -> Build:
        build = self._builds.get(turn.version)
        if build is None:
            build = difference(self._workspace_of(turn.was), self._workspace_of(turn.version))
            self._builds[turn.version] = build
        return build

    def step_next(self, step: Step | FanStep, now_ms: int) -> bool:
        """Decide the next few rows of a step; False when it is done, or says nothing to what is open."""
        return self.build_next(step, now_ms) if isinstance(step, Step) else self._fan_steps.next(step, now_ms)

    def build_next(self, step: Step, now_ms: int) -> bool:
        """Decide the next few rows of a scan's step; False when the step is done, or says nothing to the scan."""
        position = self.position
        scan = position.open_scan
        if scan is None or step.version != scan.version or step.after > scan.cursor:
            return False
        position.clock_ms = now_ms
        stretch = self.rows.stretch(scan.cursor, step.to, PIECE_ROWS)
        for user_key, user in stretch:
            if self._is_behind(user):
                self._bring_up(user_key, user, now_ms)
        scan.rows += len(stretch)
        if len(stretch) == PIECE_ROWS:
            scan.cursor = stretch[-1][0]
            return True
        if step.to is not None:
            scan.cursor = max(scan.cursor, step.to)
        else:
            scan.ended_ms, scan.turns = now_ms, []
            self._builds.clear()
        return False

    def _catch_up(self, user_key: str, user: User, now_ms: int) -> User:
        """The row, decided by the open scan."""
        if not (self._is_behind(user) and self._bring_up(user_key, user, now_ms)):
            return user
        found = self.rows.get(user_key)
        assert found is not None
        return found

    def _is_behind(self, user: User) -> bool:
        """Whether the scan that is open has not decided the row; nothing is left to decide of a merged user."""
        position = self.position
        return user.built < position.built and position.open_scan is not None and not isinstance(user.links, Merged)

    def _bring_up(self, user_key: str, user: User, until_ms: int) -> bool:
        """Decide a row as the scan would have by then; False where that changes nothing in it."""
        scan = self.position.scan
        assert scan is not None
        old_timer_ms = user.timer_ms
        fanouts = self.fanning.pending(user, user_key)
        raised = bring_up(user, user_key, scan.turns, until_ms, self._build_of, fanouts, self.fanning.choose)
        if raised.changed:
            user.fanned = self.position.fanned
            self.position.totals.timers += raised.timers
            self._keep(user_key, user, old_timer_ms, raised.effects)
        return raised.changed

    def _row(self, user_key: str) -> User | None:
        """The row of a user about whom there is a letter, decided by the newest definitions; it must be put."""
        position = self.position
        user = self.rows.get(user_key)
        if user is not None and (user.built != position.built or user.fanned != position.fanned):
            if self._is_behind(user) and self._bring_up(user_key, user, position.clock_ms):
                user = self.rows.get(user_key)
                assert user is not None
            user.built = position.built
            if user.fanned != position.fanned:
                self.fanning.touch(user, user_key)
        return user

    def _is_above(self, cause: Cause) -> bool:
        source = f"{cause.topic_id}/{cause.partition}"
        highest = self.position.causes.get(source)
        if highest is None:
            self.position.causes[source] = [cause.offset, cause.item]
            return True
        offset, item = highest
        if cause.offset < offset or (cause.offset == offset and cause.item <= item):
            return False
        highest[0], highest[1] = cause.offset, cause.item
        return True

    def _happen(self, user_key: str, value: bytes, letter: Happening, now_ms: int) -> None:
        user = self._row(user_key)
        is_new = user is None
        if user is None:
            if isinstance(letter.event, (Engagement, Unblock)):
                self._refuse_unknown(user_key, value, letter.cause, now_ms)
                return
            user = new_user(now_ms, self.position.built, self.position.fanned)
        elif user.links is not None and self._send_on(user_key, user, letter, value):
            return
        old_timer_ms = user.timer_ms
        now_ms = max(now_ms, user.now_ms)
        totals = self.position.totals
        try:
            effects = users.decide_event(
                user, user_key, letter.event, letter.cause, now_ms, self._workspace, is_new=is_new
            )
        except BadInput as error:
            totals.refused += 1
            if not is_new:
                self.rows.put(user_key, user, old_timer_ms)
            self.effects.append(Refused(error.reason, error.field, error.detail, letter.cause, user_key, now_ms, value))
            return
        totals.users += is_new
        if effects is None:
            totals.duplicates += 1
            effects = []
        else:
            count_event(totals, letter.event)
        self._keep(user_key, user, old_timer_ms, effects)

    def _refuse_unknown(self, user_key: str, value: bytes, cause: Cause, now_ms: int) -> None:
        """An old link brings nobody back who has been deleted since."""
        self.position.totals.refused += 1
        detail = "nobody of that id is known, so nothing was sent to them"
        self.effects.append(Refused("unknown_user", "token", detail, cause, user_key, now_ms, value))

    def _outcome(self, user_key: str, value: bytes, outcome: Outcome) -> None:
        user = self._row(user_key)
        if user is not None and not (user.links is not None and self._send_on(user_key, user, outcome, value)):
            self._keep(user_key, user, user.timer_ms, users.decide_outcome(user, user_key, outcome))

    # ---- anonymous and known users (streams/identity.py)

    def _send_on(self, user_key: str, user: User, letter: Happening | Outcome, value: bytes) -> bool:
        """Forward a letter to a user who was merged into another; False if it is the user's own."""
        post = identity.send_on(user, user_key, letter, value)
        if post is None:
            return False
        self.position.totals.forwarded += 1
        self._keep(user_key, user, user.timer_ms, [post])
        return True

    def _relate(self, user_key: str, letter: Identify | MergePart | Forward | Consent, now_ms: int) -> None:
        """Apply a letter between users. Only intake repeats itself: what users write is committed with their rows."""
        if not isinstance(letter, Identify) or self._is_above(letter.cause):
            self.relations.receive(user_key, letter, now_ms)

    def _deliver(self, user_key: str, value: bytes, letter: Letter, now_ms: int) -> None:
        """Apply a letter that came to the user by way of another."""
        if isinstance(letter, Happening):
            self._happen(user_key, value, letter, now_ms)
        elif isinstance(letter, Outcome):
            self._outcome(user_key, value, letter)
        elif isinstance(letter, Chosen):
            self._fan_steps.take_over(user_key, letter, now_ms)

    def _keep(self, user_key: str, user: User, old_timer_ms: int | None, effects: list[Effect]) -> None:
        self.rows.put(user_key, user, old_timer_ms)
        count_effects(self.position.totals, effects)
        self.effects += effects

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects, self.effects = self.effects, []
        self.relations.posted_bytes = 0
        return effects
