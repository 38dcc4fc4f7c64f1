"""The benchmark measures what it says: seeded inputs, whole work, delays counted from the schedule."""

import json
import time
from pathlib import Path

import pytest

from streams.definitions import read_definitions
from streams.workspace import compile_workspace
from tests.bench import report, subject
from tests.bench.workload import EVENT_BYTES, Stream, definitions


def test_the_same_seed_gives_the_same_events() -> None:
    """Two streams of one seed agree to the byte, another seed differs, and every event has its size."""
    streams = [Stream("zipf", 100, seed, 1_760_000_000_000, 8) for seed in (1, 1, 2)]
    first, again, other = (stream.take(500) for stream in streams)

    assert first == again != other
    assert {len(entry.value) for entry in first} == {EVENT_BYTES}


def test_job_two_is_as_described() -> None:
    """J2 has 100 segments, 30 of them timed, 50 campaigns, and about one event in 100 fires one."""
    workspace = compile_workspace(read_definitions(definitions("J2")), 0)
    entries = Stream("uniform", 1_000, 1, 1_760_000_000_000, 8).take(20_000)
    offers = [json.loads(entry.value).get("properties", {}).get("offer", -1) for entry in entries]

    assert (len(workspace.segments), len(workspace.timed), len(workspace.campaigns)) == (100, 30, 50)
    assert sum(offer >= 0 for offer in offers) / len(offers) == pytest.approx(0.01, abs=0.003)


async def test_a_drain_applies_every_event_once(tmp_path: Path) -> None:
    """What a drain times is the whole work: every measured event is applied, and campaigns have fired."""
    result = await subject.measure(subject.Plan("drain", warm=300, events=700, user_count=50), tmp_path)

    assert (result["applied"], result["events"]) == (700, 700)
    assert result["sends"] > 0


async def test_a_stalled_system_shows_in_the_latency(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delays count from the schedule: when the producer itself is held up for 300 ms, the figures say so."""
    append = subject._append_turn

    async def held_up(*arguments: object) -> None:
        if not stalled:
            stalled.append(True)
            time.sleep(0.3)  # noqa: ASYNC251 (the stall is the point)
        await append(*arguments)  # type: ignore[arg-type]

    stalled: list[bool] = []
    monkeypatch.setattr(subject, "_append_turn", held_up)
    plan = subject.Plan("latency", warm=100, events=400, rate=1_000, user_count=50)
    result = await subject.measure(plan, tmp_path)

    assert result["probes"] == 20
    assert result["event_to_membership_ms"]["max"] > 250


def test_ratios_take_off_what_both_sides_pay() -> None:
    """The overhead ratio leaves out rules and codec; it is absent for J1 and where the subject pays less."""
    alone = {"rules": 10.0, "codec": 10.0}
    theirs = {"wall_us": 200, "cpu_us": 120}

    def ours(cpu_us: float) -> dict[str, float]:
        return {"wall_us": 100, "cpu_us": cpu_us}

    assert report.ratios("J2", ours(30), theirs, alone)["overhead"] == 10.0
    assert report.ratios("J2", ours(15), theirs, alone)["overhead"] is None
    assert report.ratios("J1", ours(30), theirs, alone) == {"total_wall": 2.0, "total_cpu": 4.0}
