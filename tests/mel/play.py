"""Plays the story: one step after the other, each followed by its facts, and all of them once more at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tests.mel import findings
from tests.mel.ledger import Fact
from tests.mel.product import GONE, LOOK_S, PATIENCE_S, CommandError
from tests.mel.story import Story

Tell = Callable[[str], None]


class Step(NamedTuple):
    """Something that happens, and what must be found because of it: from then on, or, unless it lasts, only then."""

    name: str
    title: str
    do: Callable[[Story], Awaitable[None]]
    facts: Callable[[Story], Awaitable[list[Fact]]]
    lasts: bool = True


STEPS: Final = (
    Step("moves", "A team moves to the platform, with the tables of the old one", Story.move_in, findings.moved_in),
    Step("browses", "Somebody reads in the shop and likes a story", Story.browse, findings.browsed, lasts=False),
    Step("logs_in", "She logs in: it is Mel", Story.log_in, findings.merged, lasts=False),
    Step("likes", "Mel likes another story like it", Story.like, findings.in_segment),
    Step("announces", "The team plans an announcement for tomorrow", Story.announce, findings.announced),
    Step(
        "chooses",
        "Tomorrow begins somewhere: each person's best hour is looked up",
        Story.choose,
        findings.nothing_yet,
        lasts=False,
    ),
    Step("writes", "The evening comes, hour by hour", Story.pass_evening, findings.written),
    Step("opens", "Mel opens her mail", Story.open_mail, findings.opened),
    Step("clicks", "She follows the link", Story.click, findings.clicked),
    Step("wishes", "She puts the record on her wishlist", Story.wish, findings.wished),
    Step("reports", "The team looks at the report", Story.look_back, findings.reported),
)


class Gaps:
    """Which processes are killed behind which steps."""

    def __init__(self, text: str) -> None:
        """Nothing: none; `seed:n`: one, behind one step; a number: one behind each step, another one for each number.

        Raises ValueError for anything else.
        """
        kind, _, rest = text.rpartition(":")
        self._turn = int(rest) if text else None
        self._dice = random.Random(int(rest)) if kind == "seed" else None
        if kind not in ("", "seed"):
            raise ValueError(f"CHAOS={text!r}: write 1 (or 2, 3) to kill in every gap, or seed:n for one gap")

    def plan(self, names: tuple[str, ...]) -> dict[str, str]:
        """The process that is killed, by the name of the step before."""
        steps = [step.name for step in STEPS[:-1]]
        if self._turn is None:
            return {}
        if self._dice is not None:
            return {self._dice.choice(steps): self._dice.choice(names)}
        return {step: names[(at + self._turn) % len(names)] for at, step in enumerate(steps)}


@dataclass
class Played:
    """What came of it."""

    facts: list[Fact] = field(default_factory=list)
    kills: list[str] = field(default_factory=list)
    restarts: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def holds(self) -> bool:
        """Whether every fact was found exactly once where it belongs."""
        return not self.error and bool(self.facts) and all(fact.holds for fact in self.facts)

    def summary(self) -> dict[str, Any]:
        """As the last line tells it."""
        return {
            "ok": self.holds,
            "facts": len(self.facts),
            "things": sum(sum(fact.wanted.values()) for fact in self.facts),
            "missing": [f"{fact.what} ({fact.where}): {thing}" for fact in self.facts for thing in fact.missing],
            "doubled": [f"{fact.what} ({fact.where}): {thing}" for fact in self.facts for thing in fact.doubled],
            "strange": [f"{fact.what} ({fact.where}): {thing}" for fact in self.facts for thing in fact.strange],
            "killed": self.kills,
            "gave_up": self.restarts,
            **({"error": self.error} if self.error else {}),
        }


async def play(story: Story, gaps: Gaps, tell: Tell) -> Played:
    """Every step, and at the end every fact that lasts once more, when nothing is under way any more."""
    played = Played(restarts=story.product.restarts)
    plan = gaps.plan(story.product.names)
    try:
        await story.product.start()
        for number, step in enumerate(STEPS, 1):
            tell(f"\n{str(story.stage.clock)[:16].replace('T', ' ')}  {number:2}. {step.title}")
            await step.do(story)
            if step.name in plan:
                played.kills.append(f"{plan[step.name]} behind {step.name}")
                tell(f"{'':22}⚡ kill -9 {plan[step.name]}")
                await story.product.kill(plan[step.name])
                await story.product.start()
            found = await _found(story, step)
            for fact in found:
                tell(f"{'':22}{'✓' if fact.holds else '✗'} {fact}")
            played.facts += [] if step.lasts else found
        await story.product.settle()
        for step in STEPS:
            if step.lasts:
                played.facts += await step.facts(story)
    except (*GONE, CommandError, AssertionError, KeyError, StopIteration) as error:
        played.error = f"{type(error).__name__}: {error}"
    return played


async def _found(story: Story, step: Step) -> list[Fact]:
    """The facts of a step once they hold, or as they are after a while."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = await step.facts(story)
            if all(fact.holds for fact in found) or time.monotonic() > deadline:
                return found
        except GONE:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(LOOK_S)
