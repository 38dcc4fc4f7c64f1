"""Replaying dead letters over all partitions, whoever holds them."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Final, Protocol

from streams.events import JSONValue

PORTION_LETTERS: Final = 1_000
"""Of one request, so that a replay can be stopped between two."""

HEED_S: Final = 0.001
"""Between two portions: a loop that is given no time hears no signal."""

_COUNTS: Final = ("letters", "records", "replayed_before", "gone")


class Asked(Protocol):
    """Whoever answers commands: a session of the command line, a node, a fleet."""

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer. Raises HeadraceError."""


async def replay_until_stopped(session: Asked, *, reason: str, limit: int, again: bool) -> dict[str, Any]:
    """The same from a command line: SIGINT and SIGTERM stop it."""
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return await replay_all(session, reason=reason, limit=limit, again=again, is_stopped=stop.is_set)


async def replay_all(
    session: Asked, *, reason: str, limit: int, again: bool, is_stopped: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Replay partition by partition, in portions: see `DeadLetters.replay`; `limit` counts over all, 0 for no limit.

    Once `is_stopped` it returns after the portion under way. What was replayed is marked, so the same call goes on.

    Returns:
        The sums, under `not_held` the partitions that no process answered for, and `stopped` if it was.
    """
    total: dict[str, Any] = {**dict.fromkeys(_COUNTS, 0), "not_held": [], "stopped": False}
    for partition in range(int(await session.ask("partitions", {}))):
        args: dict[str, Any] = {"partition": partition, "reason": reason, "again": again}
        while not (limit and total["letters"] >= limit):
            await asyncio.sleep(HEED_S)
            if is_stopped():
                return {**total, "stopped": True}
            portion = min(PORTION_LETTERS, limit - total["letters"]) if limit else PORTION_LETTERS
            found = await session.ask("replay", {**args, "limit": portion})
            if found is None:
                total["not_held"].append(partition)
                break
            for name in _COUNTS:
                total[name] += found[name]
            if found["next"] >= found["end"]:
                break
            args |= {"start": found["next"], "end": found["end"]}
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
    if total["stopped"]:
        lines.append("stopped; the same command replays the rest")
    return "\n".join(lines)
