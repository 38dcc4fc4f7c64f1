"""Membership kept exact: which segments a change or the clock makes a user enter or leave."""

from collections.abc import Iterable, Sequence
from typing import Final

from streams.profiles.row import User
from streams.workspace import Workspace

Crossing = tuple[str, bool]

FEW_SEGMENTS: Final = 64
"""As many are sooner asked than sorted out."""


def update_memberships(user: User, workspace: Workspace, ordinals: Sequence[int], now_ms: int) -> list[Crossing]:
    """Ask the given segments again, and those that refer to one that changed; write the row's memberships.

    Args:
        user: the row.
        workspace: its segments stand in an order in which each follows those it refers to.
        ordinals: which of them, ascending.
        now_ms: the time of the decision.

    Returns:
        (segment, entered) for each change, in the workspace's order of segments.
    """
    tests, memberships = workspace.tests, user.memberships
    crossings: list[Crossing] = []
    todo = ordinals
    at = 0
    while at < len(todo):
        ordinal = todo[at]
        at += 1
        name, test, dependents = tests[ordinal]
        holds = test(user, now_ms)
        if holds == (name in memberships):
            continue
        if holds:
            memberships[name] = now_ms
        else:
            del memberships[name]
        crossings.append((name, holds))
        if dependents:
            todo, at = sorted({*todo[at:], *dependents}), 0
    return crossings


def affected(workspace: Workspace, changes: Sequence[str]) -> Sequence[int]:
    """The ordinals of the segments that may be affected by the named changes, ascending."""
    index = workspace.index
    if len(changes) == 1:
        return index.get(changes[0], ())
    return sorted({ordinal for change in changes for ordinal in index.get(change, ())})


def asked_of_new(workspace: Workspace, changes: Sequence[str]) -> Sequence[int]:
    """The ordinals of the segments that a new user may enter by the first changes, ascending.

    Those that read none of the changes are as for a user of whom nothing is known; where one of these does not hold
    after all, those that refer to it are asked as well.
    """
    if len(workspace.tests) <= FEW_SEGMENTS:
        return range(len(workspace.tests))
    return sorted({*workspace.first, *affected(workspace, changes)})


def timed_of(user: User, workspace: Workspace) -> Sequence[int]:
    """The ordinals of the segments that time alone can change for this user, ascending.

    What never happened to a user does not age: a window is about something that the row has a counter of.
    """
    by = workspace.timed_by
    if len(workspace.timed) <= FEW_SEGMENTS:
        return workspace.timed
    found: set[int] = set()
    for name in user.events:
        found.update(by.get(f"event:{name}", ()))
    if user.purchases is not None:
        found.update(by.get("purchases", ()))
        for product in user.products:
            found.update(by.get(f"product:{product}", ()))
        for currency in user.money:
            found.update(by.get(f"money:{currency}", ()))
    return sorted(found)


def next_change(user: User, workspace: Workspace, ordinals: Iterable[int], now_ms: int) -> int | None:
    """The first time after now at which time alone could change one of the segments; early, never late."""
    changes_at = workspace.changes_at
    first: int | None = None
    for ordinal in ordinals:
        change = changes_at[ordinal]
        if change is not None:
            time_ms = change(user, now_ms)
            if time_ms is not None and (first is None or time_ms < first):
                first = time_ms
    return first
