"""Every fault of workers, by name."""

from __future__ import annotations

from typing import Final

from tests.chaos.fleet import faults
from tests.chaos.fleet.faults import Fault
from tests.chaos.fleet.promotions import PROMOTIONS
from tests.chaos.fleet.silences import SILENCES

FAULTS: Final[dict[str, Fault]] = faults.FAULTS | PROMOTIONS | SILENCES
