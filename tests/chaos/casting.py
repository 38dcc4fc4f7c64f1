"""How a session has scheduled campaigns come round: announced a moment ahead, sure once the product knows of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from streams.errors import HeadraceError
from tests.chaos.casts import Cast

if TYPE_CHECKING:
    from tests.chaos.session import Session  # which has one of these

LEAD_S: Final = {"embedded": 1.5, "kafka": 3.0}
"""How long before its moment a campaign is defined."""

PAUSE_S: Final = {"embedded": 2.0, "kafka": 3.0}
"""Behind a moment, before the next is announced."""

CASTS_MAX: Final = 30
SURE_S: Final = 0.3
"""How long before its moment the product must be seen to know of it: more than that may be asked too late."""

LATE_JOINS: Final = 2
"""Users who join just behind its moment, while it is on its way to those who had."""

LOOKS: Final = 5
LOOK_S: Final = 0.02


class Casting:
    """The campaign that comes next. `is_hushed`: no further one is announced."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._coming: Cast | None = None
        self._followed: Cast | None = None
        self._version: int | None = None
        self.is_hushed = False

    async def go_on(self, *, at_once: bool = False) -> None:
        """Announce one where it is time to, or see whether what was announced is known; raises when nobody answers.

        `at_once`: without a pause behind the last.
        """
        casts, transport, now_s = self._session.work.casts, self._session.transport, time.time()
        if casts.all and casts.all[-1] is not self._followed and now_s > casts.all[-1].at_s:
            self._followed, self._session.work.joining = casts.all[-1], LATE_JOINS
        if self._coming is None:
            pause_s = 0.0 if at_once else PAUSE_S[transport]
            if self.is_hushed or len(casts.all) >= CASTS_MAX or now_s < casts.last_s + pause_s:
                return
            self._coming, self._version = casts.announce(now_s + LEAD_S[transport]), None
            self._session.write_workspace()
        if now_s > self._coming.at_s - SURE_S:
            self.give_up()
        else:
            await self._ask(self._coming)

    def hush(self) -> None:
        """Announce none from now on, and take back one that is not known."""
        self.is_hushed = True
        self.give_up()

    def give_up(self) -> None:
        """Whether the product heard of it in time is not known."""
        if self._coming is not None:
            self._session.work.casts.fail(self._coming)
            self._coming = None
            self._session.write_workspace()

    async def _ask(self, cast: Cast) -> None:
        """It is sure once every partition goes by a version that has it, and has applied all that was acknowledged."""
        session = self._session
        if self._version is None:
            try:
                self._version = await session.apply()
            except HeadraceError:  # its moment is past by the product's clock
                self.give_up()
                raise
        for _ in range(LOOKS):
            joined = session.work.joined()
            found, rows = await session.ask("progress"), await session.ask("scans")
            knowing = {row["partition"] for row in rows if row["version"] >= self._version}
            if self._coming is not cast:  # it was taken back meanwhile
                return
            if not found["behind"] and len(knowing) == session.partitions:
                if time.time() < cast.at_s - SURE_S:
                    cast.is_sure, cast.sure_s, cast.must = True, time.time(), joined
                    self._coming = None
                return
            await asyncio.sleep(LOOK_S)
