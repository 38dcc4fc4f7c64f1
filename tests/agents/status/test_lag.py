"""What a worker shows of its lag, with a log that only knows its offsets."""

from collections.abc import Iterable
from typing import cast

import pytest

from agents.engine.transport import Log
from agents.status.lag import LagWatch, Reading
from streams.records import Place

NOW_MS = 1_750_000_000_000


class Offsets:
    """A log whose every partition holds the offsets from 0 to 99."""

    async def starts(self, places: Iterable[Place]) -> dict[Place, int]:
        """0 everywhere."""
        return dict.fromkeys(places, 0)

    async def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """100 everywhere."""
        return dict.fromkeys(places, 100)


@pytest.mark.parametrize(("retention", "status"), [("", "OK"), ("events=2m/1GiB", "OK"), ("events=1m/1GiB", "WARN")])
async def test_retention_is_that_of_the_setting(retention: str, status: str) -> None:
    """A record of 40 s is no matter where records live two minutes or a week, and a warning where they live one."""
    watch = LagWatch(cast("Log", Offsets()), retention)
    await watch.sample({("intake", "events", 0): Reading(50, NOW_MS - 40_000)}, NOW_MS)

    [row] = watch.rows(NOW_MS)
    assert (row["status"], row["lag"], row["behind_s"]) == (status, 50, 40)


async def test_on_kafka_what_the_brokers_say_holds() -> None:
    """A window that stands already is judged anew when a topic's configuration changes, for ever included."""
    watch = LagWatch(cast("Log", Offsets()))
    await watch.sample({("intake", "events", 0): Reading(50, NOW_MS - 40_000)}, NOW_MS)
    statuses = []
    for kept_ms in (None, 45_000, 120_000):
        watch.keep({"events": kept_ms})
        statuses.append(watch.rows(NOW_MS)[0]["status"])
    assert statuses == ["OK", "WARN", "OK"]
