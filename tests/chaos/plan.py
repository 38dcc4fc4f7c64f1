"""The plan of a run: how often each point is hit over which transport, cut into sessions."""

from __future__ import annotations

import random
from collections import Counter

from tests.chaos.faults import faults_of
from tests.chaos.points import points_of
from tests.chaos.result import FAULT

FAULT_HITS = 3
"""Of each fault on each transport, in a whole run."""

KILLS_MAX = {"embedded": 40, "kafka": 24}
"""Of one session: after that many it is verified."""

QUICK_SHARED = 8
"""Of the points that both transports have, hit on Kafka too in a short run, chosen by the seed."""

Wanted = Counter[tuple[str, str]]


def names_of(transport: str) -> list[str]:
    """Every crash point and fault of a transport."""
    return [*points_of(transport), *faults_of(transport)]


def full(embedded: int, kafka: int) -> Wanted:
    """So many hits of each; a crash point that one transport alone has gets there what both would give it."""
    wanted: Wanted = Counter()
    for transport, other, count in (("embedded", "kafka", embedded), ("kafka", "embedded", kafka)):
        elsewhere = names_of(other)
        for name in names_of(transport) if count else ():
            if name.startswith(FAULT):
                wanted[transport, name] = min(count, FAULT_HITS)
            else:
                wanted[transport, name] = count if name in elsewhere else embedded + kafka
    return wanted


def quick(seed: int) -> Wanted:
    """Every point and fault of the embedded log once, all that Kafka has alone, and some of the rest there."""
    dice = random.Random(seed)
    alone = [name for name in names_of("kafka") if name not in names_of("embedded")]
    shared = [name for name in names_of("kafka") if name in names_of("embedded")]
    chosen = [*alone, *dice.sample(shared, QUICK_SHARED)]
    return Counter([*(("embedded", name) for name in names_of("embedded")), *(("kafka", name) for name in chosen)])


def sessions(wanted: Wanted, seed: int) -> list[tuple[str, list[str]]]:
    """Transport and points of each session, in shuffled order; those of both transports spread over the whole run."""
    dice, placed = random.Random(seed), []
    for transport, kills in KILLS_MAX.items():
        names = [name for (at, name), count in sorted(wanted.items()) if at == transport for _ in range(count)]
        dice.shuffle(names)
        parts = -(-len(names) // kills)
        placed += [(number / parts, transport, names[number::parts]) for number in range(parts)]
    placed.sort(key=lambda each: (each[0], -len(each[1])))
    return [(transport, names) for _, transport, names in placed]
