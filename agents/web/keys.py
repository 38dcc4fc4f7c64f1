"""The keys of the doors: one full key, given by a setting or made at the first start, and keys with scopes."""

import hashlib
import os
import secrets
import sys
from hmac import compare_digest
from pathlib import Path
from typing import Final, Literal, Protocol

from streams.api_keys import ApiKey

FILE_NAME: Final = "api-key.sha256"
KEY_BYTES: Final = 24

Verdict = Literal["allowed", "unknown", "denied"]
"""The key may; there is no such key (401); it has not the permission (403)."""


class Ring(Protocol):
    """Keys with scopes, by the hash of their text."""

    def find(self, key_hash: str) -> ApiKey | None:
        """The key, None for one that is unknown or revoked."""


class Keys:
    """A made key has 192 random bits, so its plain hash gives nothing away."""

    def __init__(self, folder: Path, given: str | None, ring: Ring | None = None) -> None:
        """Take the given full key, or the folder's; without either make one and say it once, on stderr."""
        self._ring = ring
        path = folder / FILE_NAME
        if given is not None:
            self._hash = hash_of(given)
        elif path.exists():
            self._hash = path.read_text(encoding="ascii").strip()
        else:
            key = secrets.token_urlsafe(KEY_BYTES)
            self._hash = hash_of(key)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self._hash + "\n")
            sys.stderr.write(f"headrace: the key of the door, said only this once: {key}\n")

    def allow(self, authorization: str) -> bool:
        """Whether an Authorization header bears the full key, in constant time."""
        offered = _offered(authorization)
        return offered is not None and compare_digest(offered, self._hash)

    def verdict(self, authorization: str, scope: str) -> Verdict:
        """Whether the key that an Authorization header bears has a permission; the full key has all of them."""
        offered = _offered(authorization)
        if offered is None:
            return "unknown"
        if compare_digest(offered, self._hash):
            return "allowed"
        key = self._ring.find(offered) if self._ring is not None else None  # by hash: time tells nothing of a key
        if key is None:
            return "unknown"
        return "allowed" if scope in key.scopes else "denied"


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def _offered(authorization: str) -> str | None:
    """The hash of a bearer token; None for another scheme."""
    scheme, _, token = authorization.partition(" ")
    return hash_of(token.strip()) if scheme.lower() == "bearer" else None
