"""Security: how every client of ours proves whom it speaks to, and who it is."""

import asyncio
import ssl
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason

from config.settings import Settings
from streams.errors import BadSetting


def security(settings: Settings) -> dict[str, Any]:
    """The options for a client of aiokafka, one of each kind.

    Raises:
        BadSetting: a certificate file cannot be used.
    """
    options: dict[str, Any] = {"security_protocol": settings.kafka_security.upper()}
    if settings.kafka_security.endswith("ssl"):
        options["ssl_context"] = _tls(settings)
    if settings.kafka_security.startswith("sasl"):
        options["sasl_mechanism"] = settings.kafka_mechanism
        options["sasl_plain_username"] = settings.kafka_user
        options["sasl_plain_password"] = settings.kafka_password
    return options


def _tls(settings: Settings) -> ssl.SSLContext:
    """The brokers' certificates are always verified, their names too."""
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca)
    except OSError as error:
        raise BadSetting(f"HEADRACE_KAFKA_CA={settings.kafka_ca}: not a PEM file of certificates ({error})") from None
    if settings.kafka_cert is not None:
        try:
            # A passphrase would be asked for on the terminal, and nobody sits there.
            context.load_cert_chain(settings.kafka_cert, settings.kafka_key, password=_no_passphrase)
        except OSError as error:
            raise BadSetting(
                f"HEADRACE_KAFKA_CERT={settings.kafka_cert}, HEADRACE_KAFKA_KEY={settings.kafka_key}: "
                f"not PEM files of a certificate and its key ({error})"
            ) from None
    return context


def _no_passphrase() -> str:
    raise ssl.SSLError("the key has a passphrase; give one without")


_close = AIOKafkaConnection.close


def _close_at_once(
    connection: AIOKafkaConnection, reason: CloseReason | None = None, exc: BaseException | None = None
) -> "asyncio.Future[None]":
    """Close a connection; over TLS without waiting for the broker's farewell.

    A reader that has stopped with data unread would not take that farewell, and each client would need the
    half minute that event loops allow for it. What we asked has been answered by then, or is given up.
    """
    writer = connection._writer
    closed: asyncio.Future[None] = _close(connection, reason, exc)
    if writer is not None and writer.get_extra_info("sslcontext") is not None:
        writer.transport.abort()
    return closed


AIOKafkaConnection.close = _close_at_once
