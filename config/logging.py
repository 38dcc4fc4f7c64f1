"""Logs: one line per decision on stderr, JSON or coloured, without personal data."""

import logging
import sys
from typing import Any, Final

import structlog

REDACTED: Final = frozenset(
    {"user", "external_id", "email", "address", "to", "token", "api_key", "value", "attributes", "profile"}
)


def redact(logger: object, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace what could be personal or secret, whoever put it there."""
    for key in REDACTED.intersection(event):
        event[key] = "[redacted]"
    return event


def set_up_logging(*, level: str = "INFO") -> None:
    """Log to stderr: coloured on a terminal, one JSON object per line otherwise; libraries only from WARNING on."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
