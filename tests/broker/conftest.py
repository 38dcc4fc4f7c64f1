"""The broker of a test session, or the reason why there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.broker.kafka import Broker, BrokerUnavailableError


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker for the whole session; skips without one, but fails when CI=true."""
    try:
        running = Broker.from_environment(tmp_path_factory.mktemp("kafka")).start()
    except BrokerUnavailableError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have a broker: {missing}")
        pytest.skip(f"no Kafka here: {missing}")
    yield running
    running.stop()
