"""Where a partition's fold stands, and what has happened in it."""

from decimal import Decimal

import msgspec

from streams.fanouts import FanOut, Planned
from streams.scans import Scan


class Totals(msgspec.Struct):
    """What has happened in a partition since its state began."""

    users: int = 0
    purchases: int = 0
    custom_events: int = 0
    attributes: int = 0
    sessions: int = 0
    duplicates: int = 0
    refused: int = 0
    revenue: dict[str, Decimal] = {}
    entered: dict[str, int] = {}
    left: dict[str, int] = {}
    sends: dict[str, int] = {}
    timers: int = 0
    merged: int = 0
    forwarded: int = 0
    merge_values_left_out: int = 0
    merges_split: int = 0
    links_forgotten: int = 0
    missed: int = 0
    engagements: int = 0


class Position(msgspec.Struct):
    """Where a partition's fold stands: everything but rows and timers that the next letter depends on.

    `built` is the newest version that rows have to be decided by; while `scan` is open, rows of a lower one
    are not yet. `fanned` counts the fan-outs that were opened, of which `fanouts` are open, oldest first; `plans`
    says of each scheduled campaign how far it is.
    """

    next_offset: int = 0
    clock_ms: int = 0
    version: int = -1
    causes: dict[str, list[int]] = {}
    totals: Totals = msgspec.field(default_factory=Totals)
    built: int = -1
    scan: Scan | None = None
    fanned: int = 0
    fanouts: list[FanOut] = []
    plans: dict[str, Planned] = {}

    @property
    def open_scan(self) -> Scan | None:
        """The scan that has not ended, if there is one."""
        return self.scan if self.scan is not None and self.scan.ended_ms is None else None
