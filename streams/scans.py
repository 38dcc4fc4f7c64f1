"""A scan: the rows of a partition, decided in steps as if all had been decided at the moment of a switch.

A row that is not decided yet when something touches it is brought up first. What comes out, row by row, is
what it would be had the whole partition been decided in an instant; only the order between users differs.
"""

from collections.abc import Callable, Sequence

import msgspec

from streams.builds import Build
from streams.fanouts import FanOut
from streams.profiles.row import User
from streams.users import Effects, decide_build, decide_timer


class Turn(msgspec.Struct, array_like=True):
    """A switch from version `was` to `version` at `at_ms`; one that `builds` changes what rows are decided by."""

    version: int
    was: int
    at_ms: int
    builds: bool


class Scan(msgspec.Struct, array_like=True):
    """How far the rows of a partition are decided by `version`, to which it went over at `start_offset`.

    `turns` are the switches that a row not decided yet has to go through, oldest first: several when one
    comes before the scan for another has ended. `cursor` is the last key decided, `rows` how many those are.
    """

    version: int
    start_offset: int
    at_ms: int
    turns: list[Turn]
    cursor: str = ""
    rows: int = 0
    ended_ms: int | None = None


class Raised(msgspec.Struct):
    """What bringing a row up gave; `changed` false: the row is as it was, and need not be written."""

    effects: Effects
    timers: int
    changed: bool


def bring_up(
    user: User,
    user_key: str,
    turns: Sequence[Turn],
    until_ms: int,
    build_of: Callable[[Turn], Build],
    fanouts: Sequence[FanOut],
    choose: Callable[[User, FanOut], bool],
) -> Raised:
    """Take the row through the switches and fan-outs that it has not seen, and fire its timers, each at its own time.

    Timers that came due between two switches are decided by the workspace in force then, those after the
    last by the newest, up to `until_ms`. On a row that a scan has passed without a change this changes
    nothing again, so it may be repeated.
    """
    raised = Raised([], 0, changed=False)
    before, built = user.built, user.built
    build: Build | None = None
    for turn in _in_order(turns, fanouts):
        if isinstance(turn, FanOut):
            if build is not None:
                _fire(raised, user, user_key, turn.occurrence.at_ms, build, built)
            raised.changed |= choose(user, turn)
            continue
        if turn.version <= before:
            continue
        if build is not None:
            _fire(raised, user, user_key, turn.at_ms, build, built)
        build = build_of(turn)
        if turn.builds:
            built = turn.version
            effects = decide_build(user, user_key, turn.at_ms, build)
            if effects is not None:
                user.built = built
                raised.changed = True
                raised.effects += effects
    if build is not None:
        _fire(raised, user, user_key, until_ms, build, built)
    return raised


def _in_order(turns: Sequence[Turn], fanouts: Sequence[FanOut]) -> Sequence[Turn | FanOut]:
    """Both by time; a fan-out opens before any letter of its moment, a switch among them."""
    if not fanouts:
        return turns
    both: list[Turn | FanOut] = [*fanouts, *turns]
    return sorted(both, key=lambda each: each.occurrence.at_ms if isinstance(each, FanOut) else each.at_ms)


def _fire(raised: Raised, user: User, user_key: str, until_ms: int, build: Build, built: int) -> None:
    while user.timer_ms is not None and user.timer_ms <= until_ms:
        raised.effects += decide_timer(user, user_key, max(user.timer_ms, user.now_ms), build.workspace)
        raised.timers += 1
        raised.changed = True
        user.built = built
