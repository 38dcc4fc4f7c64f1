"""Identifiers derived from what they mean: the same input gives the same id on any transport."""

from functools import lru_cache
from hashlib import blake2b
from typing import Final

USERS_REMEMBERED_MAX: Final = 16_384
DEFINITIONS_REMEMBERED_MAX: Final = 4_096


def _framed(*parts: str) -> bytes:
    """The parts with their lengths before them, so that ('ab', 'c') and ('a', 'bc') differ."""
    framed = b""
    for part in parts:
        data = part.encode()
        framed += len(data).to_bytes(4, "big") + data
    return framed


def _digest(size: int, *parts: str) -> bytes:
    """Hash the parts."""
    return blake2b(_framed(*parts), digest_size=size).digest()


DEVICE_PREFIX: Final = "device:"
"""How the key of an anonymous user begins, of whom only the device is known; no external id may."""


def device_key(device_id: str) -> str:
    """The user key of whoever uses a device that nobody is known on."""
    return DEVICE_PREFIX + device_id


def device_of(user_key: str) -> str | None:
    """The device id in the key of an anonymous user; None for a known user.

    >>> device_of("device:1b4e"), device_of("ann")
    ('1b4e', None)
    """
    return user_key[len(DEVICE_PREFIX) :] if user_key.startswith(DEVICE_PREFIX) else None


@lru_cache(USERS_REMEMBERED_MAX)
def user_id(user_key: str) -> str:
    """The 24 hex digits that exports carry as `user_id` for a user key; remembered for recent ones."""
    return _digest(12, "user", user_key).hex()


_CURRENTS: Final = _framed("currents")


def dispatch_id(campaign: str, external_id: str, incarnation: int, entry: int) -> str:
    """The 32 hex digits of one transmission: the n-th entry of a user's n-th life into a campaign."""
    return _digest(16, "dispatch", campaign, external_id, str(incarnation), str(entry)).hex()


def currents_id(*parts: str) -> str:
    """An export record's `id`, in the shape of a UUID, derived from its cause."""
    text = blake2b(_CURRENTS + _framed(*parts), digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(DEFINITIONS_REMEMBERED_MAX)
def definition_api_id(kind: str, name: str) -> str:
    """The API id of a campaign or a message variation, in the shape of a UUID, derived from its name."""
    return currents_id("definition", kind, name)


def variation_api_id(campaign: str, variant: str) -> str:
    """The API id of a campaign's message, or of its variant of that name; names hold no slash."""
    return definition_api_id("variation", f"{campaign}/{variant}" if variant else campaign)


def share_of(campaign: str, user_key: str, draw: int = 0) -> int:
    """A number from 0 to 99 that a user draws in a campaign: always the same, and independent of other campaigns.

    Even to 2 ** -57; another `draw` is another, independent number.
    """
    return int.from_bytes(_digest(8, "share", campaign, user_key, str(draw)), "big") % 100


def event_id_hash(event_id: str) -> bytes:
    """Eight bytes that stand for an event's id in the memory of applied ids."""
    return _digest(8, "event", event_id)


def topic_id(app: str, topic: str) -> str:
    """The 16 hex digits that stand for a topic of the embedded log, which lives and dies with its state."""
    return _digest(8, "topic", app, topic).hex()
