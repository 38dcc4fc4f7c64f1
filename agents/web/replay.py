"""Replaying dead letters over all partitions, whoever holds them."""

from typing import Any, Protocol

from streams.events import JSONValue


class Asked(Protocol):
    """Whoever answers commands: a session of the command line, a node, a fleet."""

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer. Raises HeadraceError."""


async def replay_all(session: Asked, *, reason: str, limit: int, again: bool) -> dict[str, Any]:
    """Replay partition by partition: see `DeadLetters.replay`; `limit` counts over all, 0 for no limit.

    Returns:
        The sums, and under `not_held` the partitions that no process answered for.
    """
    total: dict[str, Any] = {"letters": 0, "records": 0, "replayed_before": 0, "gone": 0, "not_held": []}
    for partition in range(int(await session.ask("partitions", {}))):
        left = limit - total["letters"]
        if limit and not left:
            break
        args = {"partition": partition, "reason": reason, "limit": left if limit else 0, "again": again}
        found = await session.ask("replay", args)
        if found is None:
            total["not_held"].append(partition)
            continue
        for name, count in found.items():
            total[name] += count
    return total


def summary(total: dict[str, Any]) -> str:
    """What a replay did, for people."""
    lines = [f"dead letters replayed: {total['letters']:,}, in records: {total['records']:,}"]
    if total["replayed_before"]:
        lines.append(f"replayed before: {total['replayed_before']:,}; --again replays them once more")
    if total["gone"]:
        lines.append(f"without the record's bytes, which were gone: {total['gone']:,}")
    if total["not_held"]:
        lines.append(f"partitions {total['not_held']} are held by no process that answers here; ask again later")
    return "\n".join(lines)
