"""What goes wrong, and when: chosen by the seed before anything happens."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from tests.simulation.site import Site

STEPS = ("before write", "after write", "after write", "before sync", "before append", "after append")
RARE_STEPS = ("before link", "after link")


@dataclass
class Fault:
    """One thing that goes wrong at a time, on a worker."""

    at_s: float
    kind: str
    worker: int
    amount: float
    step: str

    async def happen(self, site: Site) -> None:
        """Wait for the time, then let it happen to whoever is there."""
        await asyncio.sleep(self.at_s)
        process = site.processes[self.worker]
        if self.kind in ("kill", "power"):
            site.kill(self.worker, power=self.kind == "power")
        elif self.kind in ("kill at", "power at"):
            if self.kind == "power at":
                site.power.add(self.worker)
            rare = self.step in RARE_STEPS
            process.dies_in[self.step] = 1 if rare else 1 + int(self.amount * 12)
        elif self.kind == "freeze":
            site.freeze(self.worker, 0.2 + 4 * self.amount)
        elif self.kind == "stall":
            site.loop.stalled_until = site.loop.time() + 2 * self.amount
        elif self.kind == "clock":
            site.skew_s += 4 * self.amount - 2
        elif self.kind == "trouble":
            site.world.trouble = 0.2 + 0.6 * self.amount
        elif self.kind == "outage":
            site.world.down = True
            site.loop.call_later(3 * self.amount, setattr, site.world, "down", False)


KINDS = ("kill", "kill at", "kill at", "kill at", "power", "power at", "freeze", "stall", "clock", "trouble", "outage")


def plan_faults(dice: random.Random, length_s: float, workers: int = 1) -> list[Fault]:
    """None, or up to six; providers are unwell from the start in every second seed."""
    faults = []
    if dice.random() < 0.5:
        faults.append(Fault(0.0, "trouble", 0, dice.random() * 0.6, ""))
    for _ in range(dice.choice((0, 1, 1, 2, 3, 4, 5))):
        kind = dice.choice(KINDS)
        step = dice.choice((*STEPS, *RARE_STEPS))
        faults.append(Fault(0.05 + dice.random() * length_s, kind, dice.randrange(workers), dice.random(), step))
    return faults
