"""What runs: the few facts that head the status page."""

from typing import Any, Final

from config.compiled import is_compiled
from config.settings import Settings

VERSION: Final = "0.1.0"


def about(settings: Settings, role: str = "worker") -> dict[str, Any]:
    """Version, app, role and transport; no address and nothing secret."""
    return {
        "version": VERSION,
        "app": settings.app,
        "role": role,
        "transport": "Kafka" if settings.on_kafka else "embedded log",
        "clock": settings.clock,
        "code": "compiled" if is_compiled() else "interpreted",
    }
