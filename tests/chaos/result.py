"""What a run has come to: hits, verdicts, planted bugs; a table and one line of JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.verifier import Verdict

FAULT = "fault"
"""What the names of faults begin with; everything else that is hit is a crash point."""


@dataclass
class Result:
    """Everything that the sessions of a run add up to. `faults` empty: all was verified."""

    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    held: int = 0
    sessions: int = 0
    faults: list[str] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)

    def add(self, verdict: Verdict, where: str) -> None:
        """Take a session's verdict."""
        self.sessions += 1
        self.lost += verdict.lost
        self.doubled += verdict.doubled
        self.held += verdict.held
        self.faults += [f"{where}: {fault}" for fault in verdict.faults]

    def miss(self, wanted: Mapping[tuple[str, str], int]) -> None:
        """Name every point that was hit less often than asked."""
        self.faults += [
            f"{transport} {name}: {self.hits[transport, name]} of {count} hits"
            for (transport, name), count in sorted(wanted.items())
            if self.hits[transport, name] < count
        ]

    def table(self) -> str:
        """Hits of every point, over each transport."""
        transports = sorted({transport for transport, _ in self.hits})
        names = sorted({name for _, name in self.hits}, key=lambda name: (name.startswith(FAULT), name))
        lines = [f"| crash point | {' | '.join(transports)} | together |", "| --- |" + " --- |" * (len(transports) + 1)]
        for name in names:
            counts = [self.hits[each, name] for each in transports]
            lines.append(f"| {name} | {' | '.join(str(count or '–') for count in counts)} | {sum(counts)} |")
        return "\n".join(lines)

    def line(self) -> dict[str, Any]:
        """What the last line says."""
        names = {name for _, name in self.hits}
        return {
            "ok": not self.faults,
            "kills": self.kills,
            "lost": self.lost,
            "doubled": self.doubled,
            "held": self.held,
            "crash_points": sum(not name.startswith(FAULT) for name in names),
            "faults": sum(name.startswith(FAULT) for name in names),
            "hits": self.hits.total(),
            "sessions": self.sessions,
        }
