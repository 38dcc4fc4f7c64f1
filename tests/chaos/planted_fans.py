"""Bugs to plant in what goes beyond one user: fan-outs, letters between users, reports."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

from streams import identity, users
from streams.campaigns.planned import enter_planned
from streams.fanning import Fanning
from streams.mailbox import Happening
from streams.reports import Seen
from tables.reports import stage_progress

LATE_S: Final = 0.2


def fan_out_restarted(real: Any) -> Any:
    """After a start a fan-out begins anew, and no row knows that it was decided, or that its user has had it."""
    touch, enter = Fanning.touch, enter_planned

    def unstamped(self: Fanning, user: Any, user_key: str, stepped: Any = None) -> None:
        fanned = user.fanned
        touch(self, user, user_key, stepped)
        if stepped is not None:
            user.fanned = fanned

    def begin_anew(self: Any, step: Any, now_ms: int) -> bool:
        begun = self.__dict__.setdefault("begun", set())
        fanout = self._fold.fanning.ready(step.number)
        if fanout is not None and step.number not in begun:
            begun.add(step.number)
            fanout.cursor, fanout.rows = "", 0
        return bool(real(self, step, now_ms))

    def forgetful(user: Any, user_key: str, campaign: Any, *rest: Any) -> Any:
        history = user.campaigns.get(campaign.name)
        if history is not None:
            user.campaigns[campaign.name] = msgspec.structs.replace(history, last_ms=0, occurrence=None)
        return enter(user, user_key, campaign, *rest)

    setattr(Fanning, "touch", unstamped)  # noqa: B010
    setattr(users, "enter_planned", forgetful)  # noqa: B010
    return begin_anew


def letters_twice(real: Any) -> Any:
    """An anonymous user's row is sent twice, and its receiver takes in both."""
    take = identity.take

    def parts(*args: Any) -> list[Any]:
        found = real(*args)
        return [*found, *found]

    setattr(identity, "take", lambda *args: take(*args) or True)  # noqa: B010
    return parts


def late_event_dropped(real: Any) -> Any:
    """What is sent on for a merged user is a letter that its receiver has taken in already."""

    def send_on(user: Any, user_key: str, letter: Any, value: bytes) -> Any:
        post = real(user, user_key, letter, value)
        if post is None or not isinstance(letter, Happening):
            return post
        return msgspec.structs.replace(post, letter=msgspec.structs.replace(post.letter, number=0))

    return send_on


def report_position_early(real: Any) -> Any:
    """How far reports have counted is kept before the counters are."""

    async def commit(self: Any, partition: int, held: Any) -> None:
        batch = self._engine.transport.batch()
        stage_progress(batch, partition, held.progress)
        await self._engine.transport.commit(partition, batch, [])
        await asyncio.sleep(LATE_S)
        await real(self, partition, held)

    return commit


def nothing_seen(real: Any) -> Any:
    """Of no dispatch it is remembered that it was opened."""
    return lambda self, dispatch_id: Seen()
