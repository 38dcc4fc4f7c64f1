"""Names of lanes: a queue of pending dispatches is one of a channel, of a host, and of transactional or bulk sends."""

from typing import Final

from streams.sends import Lane

BULK: Final = "bulk/"
"""Begins the names of bulk lanes; no host can begin so, and lanes of a version that knew none are transactional."""

Waiting = dict[str, int]
"""How many dispatches are pending, by `named(lane, channel)`."""


def named(lane: Lane, host: str) -> str:
    """The name of a host's lane."""
    return BULK + host if lane == "bulk" else host


def lane_of(name: str) -> Lane:
    """Which of the two lanes a name belongs to."""
    return "bulk" if name.startswith(BULK) else "transactional"


def host_of(name: str) -> str:
    """The host whose lane it is."""
    return name.removeprefix(BULK)
