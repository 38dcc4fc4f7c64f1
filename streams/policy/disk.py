"""Disk: when a filesystem is so full that nothing new may be taken, and when it may be again."""

from typing import Final

import msgspec

RECOVERY: Final = 1.25
"""Times the mark must be free before a disk that was low is not low any more, so that it does not flap."""


class DiskMark(msgspec.Struct, frozen=True):
    """A disk is low below either bound: so many bytes free, or so large a share of the filesystem."""

    free_bytes_min: int
    free_share_min: float

    def is_low(self, free_bytes: int, total_bytes: int, *, was_low: bool) -> bool:
        """Whether a filesystem with so much left is low, given whether it was at the last look."""
        wanted = max(self.free_bytes_min, self.free_share_min * total_bytes)
        return free_bytes < (wanted * RECOVERY if was_low else wanted)
