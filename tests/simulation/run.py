"""One seed, from its first event to the verdict."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from streams.errors import HeadraceError
from tests.simulation import embedded_checks
from tests.simulation.faults import plan_faults
from tests.simulation.loop import Stuck, VirtualLoop
from tests.simulation.planted import PLANTS
from tests.simulation.runtime import replaced
from tests.simulation.site import Site
from tests.simulation.workload import plan, workspace

QUIET_S_MAX = 600.0  # of virtual time: a call that got no answer three times waits for up to 256 s of it
AFTER_S = 9.0
LOOK_S = 0.1


@dataclass
class Verdict:
    """What a seed showed: nothing in `broken` means that every law held."""

    seed: int
    plant: str = ""
    digest: str = ""
    broken: list[str] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)


def simulate(seed: int, plant: str = "", tells: Callable[[str], None] | None = None) -> Verdict:
    """Run one seed, with a planted bug or none, in a folder of its own, below the memory disk where there is one."""
    root = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="headrace-simulation-", dir=root))
    try:
        return _run(Verdict(seed, plant), folder, tells)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(verdict: Verdict, folder: Path, tells: Callable[[str], None] | None) -> Verdict:
    dice = random.Random(verdict.seed)
    planted = PLANTS[verdict.plant]() if verdict.plant else []
    loop = VirtualLoop(dice, shuffles=dice.random() < 0.5, tells=tells)
    site = Site(loop, dice, folder / "data", _write_workspace(folder / "workspace"))
    gc.disable()
    asyncio.set_event_loop(loop)
    try:
        with replaced([*site.replacements(), *planted]):
            try:
                loop.run_until_complete(_story(site, verdict))
            except Stuck as error:
                verdict.broken.append(f"it never came to rest: {error}")
            finally:
                site.over = True
                loop.bury()
                _end(loop)
    finally:
        asyncio.set_event_loop(None)
        gc.enable()
    verdict.broken += site.broken + loop.unexpected
    verdict.digest = loop.digest
    return verdict


def _end(loop: VirtualLoop) -> None:
    """Cancel what the world outside still does, then close."""
    left = list(asyncio.all_tasks(loop))
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        with suppress(RuntimeError):
            task.get_coro().close()
    loop.close()


async def _story(site: Site, verdict: Verdict) -> None:
    dice, loop = site.dice, site.loop
    loop.deadline = QUIET_S_MAX
    length_s = 3.0 + dice.random() * 7.0
    ops = plan(dice, length_s)
    checks = embedded_checks.Checks(site, ops)
    site.start()
    faults = plan_faults(dice, length_s)
    works = [loop.create_task(site.do(op)) for op in ops]
    works += [loop.create_task(fault.happen(site)) for fault in faults]
    await asyncio.gather(*works)
    site.world.trouble, site.world.down = 0.0, False
    loop.trace("healed")
    await _rest(site)
    await asyncio.sleep(AFTER_S)
    await _rest(site)
    await site.within(0, lambda node: node.export.flush())
    checks.judge(verdict)
    site.over = True


async def _rest(site: Site) -> None:
    """Wait until every worker lives and has done everything."""
    while True:
        if await site.within(0, _quiet):
            return
        await asyncio.sleep(LOOK_S)


async def _quiet(node: object) -> bool:
    """Whether the node came to rest; one whose engine has failed is about to stop by itself, which is a fault."""
    try:
        await node.quiesce()  # type: ignore[attr-defined]
    except HeadraceError:
        return False
    return True


def _write_workspace(folder: Path) -> Path:
    for name, document in workspace().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document), "utf-8")
    return folder
