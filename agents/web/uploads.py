"""A body into a file, whatever its size: bounded memory, a digest of what arrived, and nothing left of a half."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from hashlib import blake2b
from pathlib import Path
from typing import Final

from agents.durable import HALF
from streams.errors import BadInput

DIGEST_BYTES: Final = 12
BLOCK_BYTES: Final = 1024 * 1024


async def save(parts: AsyncIterator[bytes], folder: Path, bytes_max: int, idle_s_max: float) -> Path:
    """Write a body to `<digest>.csv` in the folder, for its owner alone; the same content gives the same file.

    Raises:
        BadInput: `too_large`, or `slow` when nothing came for so long. The half is removed, as by any other error.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{secrets.token_hex(8)}{HALF}"
    digest, size, block = blake2b(digest_size=DIGEST_BYTES), 0, b""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            while True:
                part = await _next(parts, idle_s_max)
                size += len(part or b"")
                if size > bytes_max:
                    raise BadInput("too_large", "", f"more than {bytes_max} bytes; split the file")
                block += part or b""
                if part is None or len(block) >= BLOCK_BYTES:
                    await asyncio.to_thread(file.write, block)
                    digest.update(block)
                    block = b""
                if part is None:
                    break
            await asyncio.to_thread(os.fsync, file.fileno())  # whoever is told that it is here need not send it again
        target = folder / f"{digest.hexdigest()}.csv"
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)
    return target


async def _next(parts: AsyncIterator[bytes], idle_s_max: float) -> bytes | None:
    """The next part, None at the end."""
    try:
        async with asyncio.timeout(idle_s_max):
            return await anext(parts, None)
    except TimeoutError:
        raise BadInput("slow", "", f"nothing came for {idle_s_max:.0f} s; send it again") from None
