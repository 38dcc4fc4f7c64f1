"""Same log, same bytes: real processes fold one mailbox log, cut, killed and hashed differently, to the same state."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.codec import pack
from tests.agents.fold_again import Plan
from tests.agents.mailbox_logs import LOGS, Found, reference, write_log
from tests.driver import Driver

ROOT = Path(__file__).parents[2]
SMALL = {"slice_records": 7, "effects_max": 5, "rows_max": 3}

Run = Callable[..., Found]


@cache
def made(clock: str) -> Driver:
    """The log of a clock, made once."""
    return LOGS[clock]()


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data folder per log, to be copied; nothing has been folded in it."""
    folders = {clock: tmp_path_factory.mktemp(clock) for clock in LOGS}
    for clock, folder in folders.items():
        write_log(made(clock), folder)
    return folders


def start(plan: Plan, hash_seed: int) -> int:
    """Run the plan in a process of its own; its return code, negative for a signal."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    environment["PYTHONHASHSEED"] = str(hash_seed)
    command = [sys.executable, "-m", "tests.agents.fold_again", msgspec.json.encode(plan).decode()]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()[-4_000:]
    return ended.returncode


def folded(template: Path, to: Path, clock: str, hash_seed: int, kills: list[str], **plan: Any) -> Found:
    """What processes make of a copy of the folder: one per kill, each on what the last one left, then the last."""
    shutil.copytree(template, to)
    for kill in kills:
        assert start(Plan(str(to), clock, die=kill, **plan), hash_seed) == -signal.SIGKILL
    assert start(Plan(str(to), clock, **plan), hash_seed) == 0
    found: Found = msgspec.msgpack.decode((to / "told").read_bytes())
    return found


def points(seed: int, commits_max: int) -> list[str]:
    """Moments to die at: instead of a commit, just after one, and amid the fold of a slice."""
    dice = random.Random(seed)
    plans = [
        f"{step}:{1 + dice.randrange(commits_max)}:{side}" for step, side in (("write", "before"), ("write", "after"))
    ]
    return [*plans, f"apply:{1 + dice.randrange(commits_max)}:after"]


def first_difference(one: Found, other: Found) -> str:
    """Where two results part, for the message of a failure; empty when they are the same bytes."""
    if pack(one) == pack(other):
        return ""
    for part in sorted({*one, *other}):
        mine, yours = one[part], other[part]
        if isinstance(mine, dict):
            for key in sorted({*mine, *yours}, key=str):
                if mine.get(key) != yours.get(key):
                    return f"{part} {key!r}: {str(mine.get(key))[:2_000]} != {str(yours.get(key))[:2_000]}"
        elif mine != yours:
            return f"{part}: {mine[:20]} != {yours[:20]}"
    return "the order of keys"


WAYS: dict[str, tuple[int, int, dict[str, int]]] = {
    "whole": (1, 0, {}),
    "one_by_one": (2, 900, {"slice_records": 1}),
    "small_parts": (3, 200, SMALL),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clock", LOGS)
def test_a_process_gives_the_bytes_of_the_reference(
    clock: str, way: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    """With any hash seed, cuts and kills, rows, timers, positions and outputs are those of a plain fold."""
    hash_seed, commits_max, plan = WAYS[way]
    kills = points(hash_seed, commits_max) if commits_max else []

    found = folded(templates[clock], tmp_path / "data", clock, hash_seed, kills, **plan)

    assert first_difference(reference(made(clock)), found) == ""


@pytest.mark.parametrize("clock", LOGS)
def test_the_logs_are_worth_folding(clock: str) -> None:
    """Each log reaches what could go wrong: sends, crossings, records, refusals, duplicates, ties, waiting users."""
    found = reference(made(clock))
    topics = {place.split("/")[0] for place in found["outputs"]}
    dues = [key[:10] for key in found["due"]]
    totals = [fold.position.totals for fold in made(clock).folds]

    assert topics >= {"currents", "segment-changes", "sends.email", "sends.webhook"}
    assert all(total.timers > 200 for total in totals)
    if clock == "wall":
        assert topics >= {"dead-letters", "sends.log"}
        assert sum(total.refused for total in totals) > 5
        assert sum(total.duplicates for total in totals) > 5
    else:
        assert len(set(dues)) < len(dues) > 30


@pytest.mark.parametrize("fault", ["clock", "random", "set"])
def test_a_planted_fault_shows_between_two_processes(fault: str, templates: dict[str, Path], tmp_path: Path) -> None:
    """A rule that reads the clock, throws dice or goes through a set makes two processes give different bytes."""
    one, other = (folded(templates["wall"], tmp_path / str(seed), "wall", seed, [], fault=fault) for seed in (1, 2))

    assert first_difference(one, other) != ""


def test_state_that_a_slice_forgets_shows(templates: dict[str, Path], tmp_path: Path) -> None:
    """An agent that depends on where slices are cut gives other bytes for other cuts."""
    plans = ({"slice_records": 2_000}, {"slice_records": 7})
    one, other = (
        folded(templates["wall"], tmp_path / str(plan["slice_records"]), "wall", 1, [], fault="slice", **plan)
        for plan in plans
    )

    assert first_difference(one, other) != ""


def test_a_commit_in_two_halves_shows_after_a_kill(templates: dict[str, Path], tmp_path: Path) -> None:
    """If outputs and state were written apart, a kill between the two would leave outputs twice."""
    data = tmp_path / "data"
    shutil.copytree(templates["wall"], data)
    assert start(Plan(str(data), "wall", fault="torn", slice_records=7), 1) == -signal.SIGKILL
    assert start(Plan(str(data), "wall"), 1) == 0

    found: Found = msgspec.msgpack.decode((data / "told").read_bytes())
    assert first_difference(reference(made("wall")), found).startswith("outputs")
