"""The key of the doors: given by a setting, or made at the first start and remembered as a hash."""

import hashlib
import os
import secrets
import sys
from hmac import compare_digest
from pathlib import Path
from typing import Final

FILE_NAME: Final = "api-key.sha256"
KEY_BYTES: Final = 24


class Keys:
    """One full key. A made one has 192 random bits, so its plain hash gives nothing away."""

    def __init__(self, folder: Path, given: str | None) -> None:
        """Take the given key, or the folder's; without either make one and say it once, on stderr."""
        path = folder / FILE_NAME
        if given is not None:
            self._hash = _hash(given)
        elif path.exists():
            self._hash = path.read_text(encoding="ascii").strip()
        else:
            key = secrets.token_urlsafe(KEY_BYTES)
            self._hash = _hash(key)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self._hash + "\n")
            sys.stderr.write(f"headrace: the key of the door, said only this once: {key}\n")

    def allow(self, authorization: str) -> bool:
        """Whether an Authorization header bears the key, in constant time."""
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and compare_digest(_hash(token.strip()), self._hash)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
