"""The keys that links in messages are signed by: a setting, or on the embedded log made at the first start."""

import secrets
from pathlib import Path
from typing import Final

import structlog

from agents.durable import write_durably
from channels.tracking import Tracking
from config.settings import Settings
from streams.engagement import SigningKeys, read_signing_keys
from streams.errors import BadSetting

FILE_NAME: Final = "signing.key"
KEY_BYTES: Final = 32


def signing_keys(settings: Settings, *, make: bool = True) -> SigningKeys:
    """The keys of the setting, else of the data folder; none on Kafka without the setting.

    The folder's key is kept as it is, 0600: it has to sign again. `make` it where there is none.

    Raises:
        BadSetting: they cannot be used; the text quotes none.
    """
    try:
        if settings.signing_key is not None:
            return read_signing_keys(settings.signing_key)
        path = settings.data / FILE_NAME
        if settings.on_kafka or not (path.exists() or make):
            return ()
        return read_signing_keys(_made(path))
    except ValueError as error:
        raise BadSetting(f"HEADRACE_SIGNING_KEY: {error}") from None


def tracking_of(settings: Settings, keys: SigningKeys) -> Tracking | None:
    """What makes links of messages; None, and said once, where something is missing for it."""
    missing = ""
    if not keys:
        missing = "HEADRACE_SIGNING_KEY, the same for every door and worker"
    elif not settings.tracking_base:
        missing = "HEADRACE_TRACKING_URL, the door's public address"
    if not missing:
        return Tracking(settings.tracking_base, keys)
    if settings.http or settings.smtp:
        structlog.get_logger("headrace").warning("tracking_is_off", missing=missing)
    return None


def _made(path: Path) -> str:
    """The key in the file, which is made, whole or not at all, where there is none."""
    if not path.exists():
        write_durably(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode())
    return path.read_text(encoding="ascii").strip()
