"""The keys topic, followed: every door knows the same keys, whichever process made one or revoked it."""

import asyncio
import secrets
from inspect import signature
from typing import Final

import structlog

from agents.engine.transport import Log
from agents.web.keys import hash_of
from config.clock import Clock
from streams import topics
from streams.api_keys import PARTITION, ApiKey, new_key, read_keys, revoked_key
from streams.errors import BadSetting
from streams.events import JSONValue
from streams.times import format_time

FOLLOW_S: Final = 1.0
"""So much later at the latest a revoked key is refused everywhere."""

LOOK_RECORDS: Final = 500
ID_BYTES: Final = 6
SECRET_BYTES: Final = 24
COMMANDS: Final = ("listed", "create", "revoke")
KEY_COMMANDS: Final = tuple(f"keys_{name}" for name in COMMANDS)


def make_key(name: str, scopes: list[str]) -> tuple[dict[str, JSONValue], dict[str, JSONValue]]:
    """A new key for its owner, and what `create` is told of it: only a hash.

    A key begins with its id, so that its owner can tell which one it is.
    """
    key_id = secrets.token_hex(ID_BYTES)
    key = f"hr_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    shared: dict[str, JSONValue] = {"id": key_id, "name": name, "scopes": scopes}
    return {**shared, "key": key}, {**shared, "hash": hash_of(key)}


def said(made: dict[str, JSONValue]) -> str:
    """A new key, for people."""
    return f"{made['key']}\nsaid only this once; its id is {made['id']}"


class KeyRing:
    """The keys that were made and not revoked, by the hash of their text."""

    def __init__(self, log: Log, clock: Clock) -> None:
        """Empty before `load`."""
        self._log = log
        self._clock = clock
        self._keys: dict[str, ApiKey] = {}
        self._by_hash: dict[str, ApiKey] = {}
        self._used_ms: dict[str, int] = {}
        self._next_offset = 0

    def find(self, key_hash: str) -> ApiKey | None:
        """The key of a hash, noted as used now; None for one that is unknown or revoked."""
        key = self._by_hash.get(key_hash)
        if key is not None:
            self._used_ms[key.id] = self._clock.now_ms()
        return key

    async def load(self) -> None:
        """Read what the topic holds beyond what is known."""
        place = (topics.KEYS.name, PARTITION)
        end = (await self._log.ends([place]))[place]
        while self._next_offset < end:
            records = await self._log.look(*place, self._next_offset, LOOK_RECORDS)
            self._keys = read_keys(self._keys, records)
            self._next_offset = records[-1].offset + 1 if records else end
        self._by_hash = {key.hash: key for key in self._keys.values() if key.revoked_ms is None}

    async def follow(self, patience: tuple[type[Exception], ...] = ()) -> None:
        """Hear of keys for as long as the process lives; after errors of `patience` it goes on with those it knows."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await self.load()
            except patience as error:
                structlog.get_logger("headrace").warning("keys not read", error=type(error).__name__)

    async def listed(self) -> list[dict[str, JSONValue]]:
        """Every key, the oldest first; `last_used` is what this process has seen since it started."""
        await self.load()
        return [
            {
                "id": key.id,
                "name": key.name,
                "scopes": list(key.scopes),
                "created": format_time(key.created_ms),
                "revoked": None if key.revoked_ms is None else format_time(key.revoked_ms),
                "last_used": format_time(self._used_ms[key.id]) if key.id in self._used_ms else None,
            }
            for key in sorted(self._keys.values(), key=lambda key: (key.created_ms, key.id))
        ]

    async def create(self, *, id: str, name: str, scopes: list[str], hash: str) -> str:
        """Make a key known by its hash; its text never comes here. Raises BadSetting."""
        await self.load()
        key = ApiKey(id, name, tuple(dict.fromkeys(scopes)), hash, self._clock.now_ms())
        await self._log.append([new_key(self._keys, key)])
        await self.load()
        return key.id

    async def revoke(self, *, id: str) -> str:
        """Let a key open nothing any more: here at once, elsewhere within a second. Raises BadSetting."""
        await self.load()
        await self._log.append([revoked_key(self._keys, id, self._clock.now_ms())])
        await self.load()
        return id


async def ask_ring(ring: KeyRing, command: str, args: dict[str, JSONValue]) -> JSONValue:
    """The answer to `keys_listed`, `keys_create` or `keys_revoke`, in a process that has no other commands."""
    method = getattr(ring, command.removeprefix("keys_"))
    try:
        signature(method).bind(**args)
    except TypeError as error:
        raise BadSetting(f"{command}: {error}") from None
    return await method(**args)
