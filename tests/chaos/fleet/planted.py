"""Planted bugs that one worker alone can never show: each breaks what keeps two workers apart."""

from __future__ import annotations

from typing import Any, Final

from tables.changelog import Changelog
from tests.chaos.fleet.steps import GIVEN_UP
from tests.chaos.planted import Bug
from tests.chaos.points import find


def _unfenced(real: Any) -> Any:
    async def fence(self: Any, owner: str) -> None:
        self._fenced.add(owner)

    return fence


def _unproven(real: Any) -> Any:
    async def confirm(self: Any, partition: int) -> None:
        """Nothing is asked."""

    return confirm


def _unclaimed(real: Any) -> Any:
    async def reclaim(self: Any) -> None:
        for partition in self._committer.unclaimed():
            self._committer.admit(partition)

    return reclaim


def _believed_whole(real: Any) -> Any:
    async def restore(settings: Any, store: Any, partition: int, now_ms: int) -> int:
        return 0 if Changelog(store, partition).next_offset else await real(settings, store, partition, now_ms)

    return restore


BUGS: Final[dict[str, Bug]] = {
    "fencing_left_out": Bug(
        "an heir fences whoever had its partition",
        "agents.engine.kafka.claims:Claims._fence",
        _unfenced,
        ("committing", "intake", "writing"),
    ),
    "lease_not_checked": Bug(
        "an attempt needs a proof, younger than two seconds, that the partition is still ours",
        "agents.engine.kafka.transport:KafkaTransport.confirm",
        _unproven,
        ("fault: all paused while one is frozen",) * 2,
    ),
    "reclaimed_unproven": Bug(
        "what was given up is ours again only if nobody has had it since",
        "agents.engine.kafka.transport:KafkaTransport.reclaim",
        _unclaimed,
        (GIVEN_UP, GIVEN_UP),
    ),
    "copy_believed_whole": Bug(
        "what a promoted copy lacks is read before anything is done with it",
        "agents.engine.kafka.transport:restore",
        _believed_whole,
        ("fault: a standby promoted", "fault: a standby promoted, and once more"),
    ),
}


def plant(name: str) -> None:
    """Put a bug into this process."""
    bug = BUGS[name]
    owner, attribute = find(bug.target)
    setattr(owner, attribute, bug.patch(getattr(owner, attribute)))
