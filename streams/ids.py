"""Identifiers derived from what they mean: the same input gives the same id on any transport."""

from hashlib import blake2b


def _digest(size: int, *parts: str) -> bytes:
    """Hash the parts with their lengths, so that ('ab', 'c') and ('a', 'bc') differ."""
    digest = blake2b(digest_size=size)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def user_id(external_id: str) -> str:
    """The 24 hex digits that exports carry as `user_id` for an external id."""
    return _digest(12, "user", external_id).hex()


def dispatch_id(campaign: str, external_id: str, incarnation: int, entry: int) -> str:
    """The 32 hex digits of one transmission: the n-th entry of a user's n-th life into a campaign."""
    return _digest(16, "dispatch", campaign, external_id, str(incarnation), str(entry)).hex()


def currents_id(*parts: str) -> str:
    """An export record's `id`, in the shape of a UUID, derived from its cause."""
    text = _digest(16, "currents", *parts).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def definition_api_id(kind: str, name: str) -> str:
    """The API id of a campaign or a message variation, in the shape of a UUID, derived from its name."""
    return currents_id("definition", kind, name)


def event_id_hash(event_id: str) -> bytes:
    """Eight bytes that stand for an event's id in the memory of applied ids."""
    return _digest(8, "event", event_id)


def topic_id(app: str, topic: str) -> str:
    """The 16 hex digits that stand for a topic of the embedded log, which lives and dies with its state."""
    return _digest(8, "topic", app, topic).hex()
