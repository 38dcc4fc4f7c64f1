"""Membership kept exact: which segments a change or the clock makes a user enter or leave."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from streams.profiles.row import User
from streams.segments.filter import earliest
from streams.workspace import Workspace

Crossing = tuple[str, bool]


def update_memberships(user: User, workspace: Workspace, ordinals: Iterable[int], now_ms: int) -> list[Crossing]:
    """Ask the given segments again, and those that refer to one that changed; write the row's memberships.

    Returns:
        (segment, entered) for each change, in the workspace's order of segments.
    """
    todo = sorted(set(ordinals))
    heapify(todo)
    crossings: list[Crossing] = []
    memberships = user.memberships
    done = -1
    while todo:
        ordinal = heappop(todo)
        if ordinal == done:
            continue
        done = ordinal
        segment = workspace.segments[ordinal]
        name = segment.name
        holds = segment.predicate.test(user, now_ms)
        if holds == (name in memberships):
            continue
        if holds:
            memberships[name] = now_ms
        else:
            del memberships[name]
        crossings.append((name, holds))
        for dependent in workspace.index.get(f"segment:{name}", ()):
            heappush(todo, dependent)
    return crossings


def affected(workspace: Workspace, changes: Iterable[str]) -> list[int]:
    """The ordinals of the segments that may be affected by the named changes."""
    found: list[int] = []
    for change in changes:
        found.extend(workspace.index.get(change, ()))
    return found


def next_change(user: User, workspace: Workspace, ordinals: Iterable[int], now_ms: int) -> int | None:
    """The first time after now at which time alone could change one of the segments; early, never late."""
    segments = workspace.segments
    return earliest(
        change(user, now_ms) for ordinal in ordinals if (change := segments[ordinal].predicate.changes_at) is not None
    )
