"""A fleet as the status board sees it: what each worker says, and what nobody says any more."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
from aiokafka.errors import KafkaError

from agents.engine.transport import Log
from agents.status.board import Look
from agents.status.families import Family, families_of
from agents.status.lag import Key, LagWatch, Reading
from config import metrics
from config.clock import Clock
from streams.errors import HeadraceError
from streams.events import JSONValue
from streams.health import Worker

ASK_S_MAX: Final = 1.0
_log: Final = structlog.get_logger("headrace")


class Member(Protocol):
    """A worker process as its fleet knows it; `ended` is how it ended, until it answers again."""

    number: int
    ended: str

    async def ask(self, command: str, args: dict[str, Any]) -> JSONValue:
        """One command's answer. Raises OSError or HeadraceError while it gives none."""


class Crew:
    """Implements `Source` for a fleet: asks all workers at once, and waits for none longer than a second."""

    def __init__(self, members: Sequence[Member], log: Log, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self._lag = LagWatch(log)
        self._states: dict[int, Worker] = {}
        self._families: dict[str, list[Family]] = {}

    def keep(self, kept_ms: Mapping[str, int | None]) -> None:
        """See `LagWatch.keep`."""
        self._lag.keep(kept_ms)

    async def look(self) -> Look:
        """What every worker answers now; of a partition that none holds, what was last heard."""
        answers = await asyncio.gather(*(self._ask(member) for member in self._members))
        now_ms = self._clock.now_ms()
        readings: dict[Key, Reading] = {}
        self._families = {}
        for member, answer in zip(self._members, answers, strict=True):
            self._note(member, now_ms, has_answered=answer is not None)
            if answer is None:
                continue
            rows, self._families[str(member.number)] = answer
            for row in rows:
                key = (row["agent"], row["topic"], row["partition"])
                readings[key] = Reading(row["position"], row["oldest_ms"])
        try:
            async with asyncio.timeout(ASK_S_MAX):
                await self._lag.sample(readings, now_ms)
        except (KafkaError, HeadraceError, OSError) as error:
            _log.warning("the log does not answer", error=type(error).__name__)
        self._lag.show(now_ms, hidden=readings)
        return Look(
            now_ms, self.families, self._lag.rows(now_ms), [self._states[each.number] for each in self._members]
        )

    @property
    def families(self) -> dict[str, list[Family]]:
        """Metric families as last heard, by worker; under `""` the fleet's own."""
        own = [family for family in families_of(metrics.REGISTRY) if family[3]]
        return {**self._families, "": [family for family in own if _is_own(family, self._families)]}

    async def _ask(self, member: Member) -> tuple[list[dict[str, Any]], list[Family]] | None:
        try:
            async with asyncio.timeout(ASK_S_MAX):
                return await member.ask("readers", {}), await member.ask("metrics", {})
        except (OSError, HeadraceError):  # TimeoutError is an OSError
            return None

    def _note(self, member: Member, now_ms: int, *, has_answered: bool) -> None:
        """Keep since when a worker is as it is; one that never answered is still starting."""
        before = self._states.get(member.number)
        if member.ended:  # for at least one look, however soon it is back: else nobody would hear of it
            state, detail = "ended", member.ended
            member.ended = "" if has_answered else member.ended  # one that was started again is back when it answers
        elif has_answered:
            state, detail = "up", ""
        else:
            is_new = before is None or before.state in {"starting", "ended"}
            state, detail = ("starting", "") if is_new else ("silent", "")
        since_ms = before.since_ms if before is not None and before.state == state else now_ms
        self._states[member.number] = Worker(str(member.number), state, since_ms, detail)
        metrics.WORKER_UP.labels(str(member.number)).set(state == "up")


def _is_own(family: Family, workers: dict[str, list[Family]]) -> bool:
    """Whether the fleet's own process has something to say here: not the zeros of what only workers do."""
    return not workers or any(value for _, _, value in family[3])
