"""Steps of fan-outs, applied to the rows of one partition."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from streams import identity, users
from streams.campaigns.schedule import Occurrence
from streams.codec import pack
from streams.effects import Effect
from streams.fanouts import FanOut, is_owed
from streams.mailbox import Chosen, FanStep
from streams.profiles.row import Merged, User

if TYPE_CHECKING:
    from streams.fold import Fold

Row = Callable[[str], User | None]
CatchUp = Callable[[str, User, int], User]
Keep = Callable[[str, User, int | None, list[Effect]], None]

PIECE_ROWS: Final = 32
"""Rows that are decided at a time; others may work after each piece."""


class FanSteps:
    """What a fold does with them; `row`, `catch_up` and `keep` are the fold's own."""

    def __init__(self, fold: "Fold", row: Row, catch_up: CatchUp, keep: Keep) -> None:
        """Work on the fold's rows and position."""
        self._fold = fold
        self._row = row
        self._catch_up = catch_up
        self._keep = keep

    def next(self, step: FanStep, now_ms: int) -> bool:
        """Decide the next few rows of a step; False when it is done, or may not go on now."""
        fold = self._fold
        fanout = fold.fanning.ready(step.number)
        if fanout is None or step.after > fanout.cursor:
            return False
        fold.position.clock_ms = now_ms
        slots = fold.fanning.slots(fanout, now_ms)
        if not slots:
            return False
        stretch = fold.rows.stretch(fanout.cursor, step.to, PIECE_ROWS)
        decided, entered = self._decide(fanout, stretch, len(slots), now_ms)
        fold.fanning.use(fanout, slots, entered)
        fanout.entered += entered
        fanout.rows += decided
        if decided:
            fanout.cursor = stretch[decided - 1][0]
        if decided < len(stretch):
            return False
        if len(stretch) == PIECE_ROWS:
            return entered < len(slots)
        if step.to is not None:
            fanout.cursor = max(fanout.cursor, step.to)
        else:
            fold.fanning.end(fanout, "done")
        return False

    def _decide(self, fanout: FanOut, stretch: list[tuple[str, User]], most: int, now_ms: int) -> tuple[int, int]:
        """Decide rows until so many have been let in; how many rows that were, and how many got in."""
        fold, fanning, number = self._fold, self._fold.fanning, fanout.number
        then, before = fanning.campaign_of(fanout), fanning.before(fanout)
        campaign, built = fold.workspace.campaigns[fanout.campaign], fold.position.built
        has_scan = fold.position.open_scan is not None
        decided = entered = 0
        for key, row in stretch:
            if entered == most:
                break
            decided += 1
            if isinstance(row.links, Merged):
                entered += self._hand_on(key, row, fanout)
                continue
            user = self._catch_up(key, row, now_ms) if has_scan else row
            if user.fanned < number:
                if not fanning.holds(user, fanout, then, before):
                    continue
            elif number not in user.chosen:
                continue
            old_timer_ms = user.timer_ms
            fanning.touch(user, key, fanout)
            user.built = built
            at_ms = max(now_ms, user.now_ms)
            effects = users.decide_planned(user, key, campaign, fanout.occurrence, at_ms, fold.workspace)
            self._keep(key, user, old_timer_ms, effects or [])
            entered += effects is not None
        return decided, entered

    # ---- chosen as an anonymous user, and somebody by now

    def _hand_on(self, user_key: str, user: User, fanout: FanOut) -> bool:
        """Let the known user have what a merged one was chosen for; it takes the merged one's turn and slot."""
        if fanout.number not in user.chosen:
            return False
        user.chosen = [number for number in user.chosen if number != fanout.number]
        occurrence = fanout.occurrence
        letter = Chosen(fanout.campaign, occurrence.at_ms, occurrence.local_ms, occurrence.plan)
        post = identity.send_on(user, user_key, letter, pack(letter))
        assert post is not None
        self._keep(user_key, user, user.timer_ms, [post])
        return True

    def take_over(self, user_key: str, letter: Chosen, now_ms: int) -> None:
        """Send a known user what an anonymous one was chosen for, unless one person would not get it (again).

        Where the occurrence has not begun in this partition, both are one user by then, and decided as one.
        """
        user = self._row(user_key)
        fold = self._fold
        campaign = fold.workspace.scheduled.get(letter.campaign)
        cancelled = fold.workspace.cancelled.get(letter.campaign, ())
        is_over = letter.plan in cancelled or fold.workspace.is_paused(letter.campaign) or letter.at_ms > now_ms
        if user is None or campaign is None or is_over:
            return
        occurrence = Occurrence(letter.at_ms, letter.local_ms, letter.plan)
        if not is_owed(user, campaign, occurrence, fold.position.fanouts, cancelled):
            return
        old_timer_ms, at_ms = user.timer_ms, max(now_ms, user.now_ms)
        effects = users.decide_planned(user, user_key, campaign, occurrence, at_ms, fold.workspace)
        self._keep(user_key, user, old_timer_ms, effects or [])
