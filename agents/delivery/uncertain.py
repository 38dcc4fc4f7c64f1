"""Uncertain dispatches of a restored folder: its original may have sent them, and nobody can ask it."""

from config.settings import Settings
from streams.times import format_time
from tables.restored import Restored


def holds(restored: Restored, channel: str, settings: Settings) -> bool:
    """Whether an uncertain dispatch of a channel waits for an operator, by what was chosen at the restore.

    Webhooks over HTTP go out again by default: each carries the key that its first call had.
    """
    if restored.hold == "unkeyed":
        return not (channel == "webhook" and settings.sends_webhooks)
    return restored.hold == "all"


def uncertain(restored: Restored) -> str:
    """Why such a dispatch is held."""
    return f"uncertain: may have been sent after the backup of {format_time(restored.backup_ms)}"
