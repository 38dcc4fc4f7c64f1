"""Ports for servers under test: from a range that the kernel gives to no outgoing connection.

The end of a connection holds its port as a listener would, a minute longer than it lives, and the kernel takes those
ports from the same range as `bind` to port 0: an even one for a connection, an odd one for a listener. So the port
behind a free one is not free, and one that is free now may be taken before a server that is killed comes back.
"""

from __future__ import annotations

import socket
from pathlib import Path
from random import SystemRandom

LOW, HIGH = 10_000, 32_768
TRIES_MAX = 1_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_dice = SystemRandom()  # pytest-randomly seeds the usual one alike in every process


def free_port(count: int = 1) -> int:
    """The first of so many ports in a row, of loopback, that nobody uses."""
    high = min(HIGH, int(_RANGE.read_text().split()[0])) if _RANGE.exists() else HIGH
    if high < LOW + TRIES_MAX:  # this machine has no such range
        high = HIGH
    for _ in range(TRIES_MAX):
        first = _dice.randrange(LOW, high - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} free ports in a row between {LOW} and {high}")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
