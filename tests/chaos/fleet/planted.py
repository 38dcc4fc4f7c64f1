"""Planted bugs that one worker alone can never show: each breaks what keeps two workers apart."""

from __future__ import annotations

import os
from typing import Any, Final

from tests.chaos.planted import Bug
from tests.chaos.points import find


def _unfenced(real: Any) -> Any:
    async def start_producer(settings: Any, topics: Any, transactional_id: str = "") -> Any:
        return await real(settings, topics, transactional_id and f"{transactional_id}-{os.getpid()}")

    return start_producer


def _unproven(real: Any) -> Any:
    async def confirm(self: Any, partition: int) -> None:
        """Nothing is asked."""

    return confirm


BUGS: Final[dict[str, Bug]] = {
    "fencing_left_out": Bug(
        "an heir fences its predecessor",
        "agents.engine.kafka.claims:start_producer",
        _unfenced,
        ("committing", "committed", "confirming", "writing", "intake"),
    ),
    "lease_not_checked": Bug(
        "an attempt needs a proof, younger than two seconds, that the partition is still ours",
        "agents.engine.kafka.transport:KafkaTransport.confirm",
        _unproven,
        ("confirming",),
    ),
}


def plant(name: str) -> None:
    """Put a bug into this process."""
    bug = BUGS[name]
    owner, attribute = find(bug.target)
    setattr(owner, attribute, bug.patch(getattr(owner, attribute)))
