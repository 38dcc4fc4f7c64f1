"""Providers on Kafka: what holds of mails and webhooks on the embedded log holds on the broker, by one worker and two.

CI runs one case, of two kills. `KILL_SEEDS=1,2,3` runs them all, of six kills, for each of these seeds: about 75 s
a seed.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.agents.delivery_kills import never_twice, sent_once
from tests.broker.kafka import Broker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

SEEDS = [int(seed) for seed in os.environ.get("KILL_SEEDS", "").split(",") if seed]
long_run = pytest.mark.skipif(not SEEDS, reason="a long proof: name seeds in KILL_SEEDS to run it")


def on(broker: Broker, workers: int) -> dict[str, Any]:
    """A fresh app on the broker; static members and short sessions, so that a successor need not wait long."""
    app = f"t{uuid.uuid4().hex[:12]}"
    return {
        "APP": app,
        "BROKER": f"kafka://{broker.address}",
        "WORKERS": str(workers),
        "MEMBER": "one",
        "SESSION_S": "6",
    }


async def test_a_fleet_whose_workers_are_killed_sends_no_mail_twice(broker: Broker, tmp_path: Path) -> None:
    """Each mail goes at most once, each call with the same bytes, and the uncertain is held."""
    await never_twice(tmp_path, 1, 2, **on(broker, 2))


@long_run
@pytest.mark.parametrize("workers", [1, 2])
async def test_without_kills_each_is_sent_once(broker: Broker, tmp_path: Path, workers: int) -> None:
    """Every mail is handed over once, and every call made once that is taken the first time."""
    await sent_once(tmp_path, **on(broker, workers))


@long_run
@pytest.mark.parametrize("seed", SEEDS or [0])
@pytest.mark.parametrize("workers", [1, 2])
async def test_under_kills_no_mail_is_sent_twice(broker: Broker, tmp_path: Path, workers: int, seed: int) -> None:
    """What holds under two kills holds under six, of one worker of two or of a whole fleet of one."""
    await never_twice(tmp_path, seed, **on(broker, workers))
