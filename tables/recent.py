"""Rows of recent users, kept decoded between slices, within bounds."""

from typing import Final

from streams.profiles.row import User

BYTES_MAX: Final = 1024 * 1024
"""Of stored rows whose decoded form is kept per partition, where nobody says otherwise."""


class RecentRows:
    """The rows that were written last, as they were written; the one not written for longest goes first.

    Whoever takes a row may change it only if it is written again in the same batch. After an error, drop
    this with the fold that used it.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        """Keep at most so many bytes of rows, counted in their stored form."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._rows: dict[str, tuple[User, int]] = {}

    def get(self, user_key: str) -> User | None:
        """The row, if it is kept."""
        found = self._rows.get(user_key)
        return None if found is None else found[0]

    def keep(self, user_key: str, user: User, size: int) -> None:
        """Keep a row as it is stored, in so many bytes, and let go of the oldest beyond the bound."""
        known = self._rows.pop(user_key, None)
        self._bytes += size - (0 if known is None else known[1])
        self._rows[user_key] = (user, size)
        while self._bytes > self._bytes_max:
            oldest = next(iter(self._rows))
            self._bytes -= self._rows.pop(oldest)[1]

    def __contains__(self, user_key: str) -> bool:
        return user_key in self._rows
