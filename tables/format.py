"""The format of a data folder: what is newer than this program is refused, what is older is read."""

from typing import Final

from streams.errors import BadState
from tables.store import Store

FORMAT: Final = 2
"""Raised when a folder that this program has written can no longer be read by the one before."""

_KEY: Final = b"format"


def check_format(store: Store) -> None:
    """Note the format in a folder that has none, which is the first one's, or that an older program has written.

    Raises:
        BadState: the folder is of a newer program.
    """
    found = store.get("meta", _KEY)
    if found is None or int(found) < FORMAT:
        batch = store.batch()
        batch.put("meta", _KEY, str(FORMAT).encode())
        store.write(batch)
    elif int(found) > FORMAT:
        raise BadState(
            f"the data folder has format {int(found)}, this program knows up to {FORMAT}; use the newer program again"
        )
