"""Mel's story as CI plays it, with one process killed; and that the ledger and the plan of kills can be trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.broker.kafka import BrokerUnavailableError
from tests.browser.chromium import chromium
from tests.mel.ledger import fact
from tests.mel.play import STEPS, Gaps, play
from tests.mel.product import WORKERS
from tests.mel.stage import stage
from tests.mel.story import Story

needs_chromium = pytest.mark.skipif(chromium() is None, reason="no Chromium here: apt-get install chromium")
SEED = "seed:5"


async def played(folder: Path, transport: str) -> None:
    """One story with one kill, all of whose facts hold."""
    said: list[str] = []
    async with stage(folder / "mel", transport) as found:
        outcome = await play(Story(found), Gaps(SEED), said.append)
        log = found.product.log.read_text("utf-8", "replace")
    assert outcome.summary()["ok"], (outcome.summary(), said, log[-3_000:])
    assert len(outcome.kills) == 1


@needs_chromium
@pytest.mark.timeout(300)
async def test_every_fact_is_found_once_although_a_process_was_killed(tmp_path: Path) -> None:
    """On the embedded log every fact of the story is found exactly once where it belongs, whatever was killed."""
    await played(tmp_path, "embedded")


@needs_chromium
@pytest.mark.broker
@pytest.mark.timeout(400)
async def test_every_fact_is_found_once_on_kafka(tmp_path: Path) -> None:
    """The same with two workers and a door on Kafka, one of which is killed."""
    try:
        await played(tmp_path, "kafka")
    except BrokerUnavailableError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a broker: {missing}")
        pytest.skip(f"no Kafka here: {missing}")


@pytest.mark.parametrize(
    ("found", "missing", "doubled", "strange"),
    [
        (["a", "b"], [], [], []),
        (["a"], ["b"], [], []),
        (["a", "b", "b"], [], ["b"], []),
        (["a", "b", "c"], [], [], ["c"]),
        ([], ["a", "b"], [], []),
    ],
)
def test_the_ledger_sees_what_is_missing_doubled_or_strange(
    found: list[str], missing: list[str], doubled: list[str], strange: list[str]
) -> None:
    """A fact holds only where everything is there exactly once and nothing else, and says what is wrong."""
    one = fact("letters", "here", found, ["a", "b"])

    assert (one.missing, one.doubled, one.strange) == (missing, doubled, strange)
    assert one.holds == (found == ["a", "b"])


def test_every_gap_is_planned_for_every_process() -> None:
    """Three runs in a row kill each process of Kafka's in each gap; a seed gives one gap, always the same."""
    names = (*WORKERS, "door")
    killed = {pair for turn in ("1", "2", "3") for pair in Gaps(turn).plan(names).items()}

    assert killed == {(step.name, name) for step in STEPS[:-1] for name in names}
    assert len(Gaps(SEED).plan(names)) == 1
    assert Gaps(SEED).plan(names) == Gaps(SEED).plan(names)
    assert Gaps("").plan(names) == {}


@pytest.mark.parametrize("text", ["yes", "seed:", "1.5", "gap:1"])
def test_a_plan_that_nobody_understands_is_refused(text: str) -> None:
    """What CHAOS cannot mean is refused, before anything is started."""
    with pytest.raises(ValueError, match=r"CHAOS|int"):
        Gaps(text)
