"""The canary: a worker sends an event through its own partitions, one after the other, and times the message."""

import asyncio
import secrets
from time import perf_counter

from agents.engine.engine import Engine
from agents.status.series import Series
from channels.canary import Canaries
from config import metrics
from streams import canary
from streams.mailbox import Probe


class Canary:
    """At most one is under way in a partition, so that a partition that stands still costs nothing more."""

    def __init__(self, engine: Engine, canaries: Canaries, every_s: float) -> None:
        """`canaries` is where they come out again."""
        self._engine = engine
        self._every_s = every_s
        self._sender = secrets.token_hex(8)
        self._number = 0
        self._last = -1
        self._away: dict[int, tuple[str, float]] = {}
        self._waiting = Series(metrics.CANARY_WAITING_SECONDS)
        canaries.arrived = self._arrived

    async def run(self) -> None:
        """Send one every so often; nothing under the stream clock, where now is not the time."""
        if not self._every_s or self._engine.settings.clock == "stream":
            return
        metrics.CANARY_INTERVAL_SECONDS.set(self._every_s)
        while True:
            await asyncio.sleep(self._every_s)
            await self.send()

    async def send(self) -> None:
        """Send one into the next partition of ours that has none; of partitions that left, forget theirs."""
        held = sorted(self._engine.held)
        self._away = {at: away for at, away in self._away.items() if at in held}
        free = [at for at in held if at not in self._away]
        if not free:
            return
        self._last = next((at for at in free if at > self._last), free[0])
        self._number += 1
        probe = Probe(self._sender, self._number)
        self._away[self._last] = canary.dispatch_id(probe), perf_counter()
        metrics.CANARIES_SENT.inc()
        await self._engine.transport.append([canary.event(self._last, probe)])

    def _arrived(self, dispatch_id: str) -> None:
        for partition, (name, began_s) in self._away.items():
            if name == dispatch_id:
                metrics.CANARY_SECONDS.observe(perf_counter() - began_s)
                del self._away[partition]
                return

    def show(self) -> None:
        """Bring the gauge of those under way up to date."""
        now_s = perf_counter()
        self._waiting.show({(str(at),): now_s - began_s for at, (_, began_s) in self._away.items()})
