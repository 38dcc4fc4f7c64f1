"""Steps of fan-outs, applied to the rows of one partition."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from streams import users
from streams.effects import Effect
from streams.fanouts import FanOut
from streams.mailbox import FanStep
from streams.profiles.row import Merged, User

if TYPE_CHECKING:
    from streams.fold import Fold

CatchUp = Callable[[str, User, int], User]
Keep = Callable[[str, User, int | None, list[Effect]], None]

PIECE_ROWS: Final = 32
"""Rows that are decided at a time; others may work after each piece."""


class FanSteps:
    """What a fold does with them; `catch_up` and `keep` are the fold's own."""

    def __init__(self, fold: "Fold", catch_up: CatchUp, keep: Keep) -> None:
        """Work on the fold's rows and position."""
        self._fold = fold
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
        fanout.slot = slots.start + entered
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
