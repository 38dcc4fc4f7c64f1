"""The ledger of the story: each fact, where it belongs, and whether it was found there exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Fact(NamedTuple):
    """Things that must be in one place, each exactly once: those that are wanted, and those that were found there."""

    what: str
    where: str
    wanted: Counter[str]
    found: Counter[str]

    @property
    def missing(self) -> list[str]:
        """What is not there, or not often enough."""
        return sorted((self.wanted - self.found).elements())

    @property
    def doubled(self) -> list[str]:
        """What is there more often than it happened."""
        return sorted(thing for thing in (self.found - self.wanted).elements() if thing in self.wanted)

    @property
    def strange(self) -> list[str]:
        """What is there and never happened."""
        return sorted(thing for thing in (self.found - self.wanted).elements() if thing not in self.wanted)

    @property
    def holds(self) -> bool:
        """Whether everything is there, once, and nothing else."""
        return self.wanted == self.found

    def __str__(self) -> str:
        faults = ("missing", self.missing), ("doubled", self.doubled), ("never happened", self.strange)
        said = "; ".join(
            f"{word}: {', '.join(things[:4])}{' …' * (len(things) > 4)}" for word, things in faults if things
        )
        return f"{self.what} ({self.where})" + (f": {said}" if said else "")


def fact(what: str, where: str, found: Iterable[object] | object, wanted: Iterable[object] | object) -> Fact:
    """A fact about several things, given as lists, or about one value."""
    return Fact(what, where, _counted(wanted), _counted(found))


def _counted(things: Iterable[object] | object) -> Counter[str]:
    return Counter(str(thing) for thing in things) if isinstance(things, list) else Counter([str(things)])
