"""The log on Kafka while brokers are silent: a sentence that says so, and not a library's error."""

from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError

from agents.engine.kafka.log import KafkaLog
from agents.engine.pace import Pace
from agents.web.key_ring import KeyRing
from config.clock import SystemClock
from config.settings import load_settings
from streams.errors import OutsideFailing


class Silent:
    """A client whose broker gives no answer."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    async def end_offsets(self, partitions: object) -> dict[Any, int]:
        raise self._error

    beginning_offsets = end_offsets


@pytest.mark.parametrize("error", [KafkaTimeoutError, KafkaConnectionError, TimeoutError])
async def test_keys_that_no_broker_tells_are_the_outsides_failing(tmp_path: Path, error: type[Exception]) -> None:
    """Whatever asks the log hears OutsideFailing, which its callers wait for or say, where brokers are starved."""
    settings = load_settings({"HEADRACE_DATA": str(tmp_path), "HEADRACE_BROKER": "kafka://127.0.0.1:1"})
    log = KafkaLog(settings, Pace())
    log._meter = Silent(error)

    with pytest.raises(OutsideFailing, match="do they answer"):
        await KeyRing(log, SystemClock()).load()
    with pytest.raises(OutsideFailing, match="do they answer"):
        await log.look("events", 0, 0, 1)
