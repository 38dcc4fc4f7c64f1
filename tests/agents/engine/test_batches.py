"""Batches for a broker: what no broker takes is named before anything is sent."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from agents.engine.kafka.batches import send_all
from agents.engine.kafka.clients import BATCH_BYTES_MAX, RECORD_BYTES_MAX
from agents.engine.pace import Pace


@pytest.mark.parametrize("before", [0, 1])
async def test_a_record_that_no_broker_takes_is_named(before: int) -> None:
    """The first record of a batch is taken by aiokafka whatever its size: it is measured before."""
    producer: Any = SimpleNamespace(create_batch=lambda: BatchBuilder(BATCH_BYTES_MAX, 0, is_transactional=1))
    rows = [*[(b"small", b"x", ())] * before, (b"large", b"x" * RECORD_BYTES_MAX, ())]
    with pytest.raises(OverflowError, match=r"changelog\[3\]: a record of 6291461 bytes"):
        await send_all(cast("Any", producer), {("changelog", 3): rows}, Pace())
