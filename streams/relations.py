"""The letters between anonymous and known users, applied to the rows of one partition."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from streams import identity, users
from streams.effects import Effect, Post
from streams.mailbox import Consent, Forward, Identify, Letter, MergePart, decode_letter
from streams.profiles.row import Devices, Merged, User, decode_row, new_user

if TYPE_CHECKING:
    from streams.fold import Fold

Row = Callable[[str], User | None]
Keep = Callable[[str, User, int | None, list[Effect]], None]
Deliver = Callable[[str, bytes, Letter, int], None]


class Relations:
    """What a fold does with them; `row`, `keep` and `deliver` are the fold's own.

    `posted_bytes` is the size of the rows that were sent on since the fold's effects were taken last.
    """

    def __init__(self, fold: "Fold", row: Row, keep: Keep, deliver: Deliver) -> None:
        """Work on the fold's rows and position."""
        self._fold = fold
        self._row = row
        self._keep = keep
        self._deliver = deliver
        self.posted_bytes = 0

    def receive(self, user_key: str, letter: Identify | MergePart | Forward | Consent, now_ms: int) -> None:
        """Apply a letter at `now_ms`; what has been taken in already changes nothing."""
        if isinstance(letter, Identify):
            self._identify(user_key, letter, now_ms)
        elif isinstance(letter, MergePart):
            self._merge(user_key, letter, now_ms)
        elif isinstance(letter, Forward):
            self._take_in(user_key, letter, now_ms)
        else:
            user = self._row(user_key)
            if user is not None and identity.hear_consent(user, letter):
                self._keep(user_key, user, user.timer_ms, [])

    def _identify(self, user_key: str, letter: Identify, now_ms: int) -> None:
        """A device's anonymous user is somebody: send on what it is, and keep where it went."""
        user, is_new = self._row_or_new(user_key, now_ms)
        old_timer_ms, was_merged = user.timer_ms, user.links is not None
        is_full = isinstance(user.links, Merged) and len(user.links.relations) >= identity.RELATIONS_MAX
        user.now_ms = max(now_ms, user.now_ms)
        position = self._fold.position
        effects = identity.decide_identify(user, user_key, letter, position.version, is_new=is_new)
        totals = position.totals
        if not (is_new or was_merged):
            totals.users -= 1
            totals.merged += 1
        sizes = [
            len(each.letter.data) for each in effects if isinstance(each, Post) and isinstance(each.letter, MergePart)
        ]
        self.posted_bytes += sum(sizes)
        totals.merges_split += len(sizes) > 1
        totals.links_forgotten += is_full and bool(sizes)
        self._keep(user_key, user, old_timer_ms, effects)

    def _row_or_new(self, user_key: str, now_ms: int) -> tuple[User, bool]:
        user = self._row(user_key)
        position = self._fold.position
        return (new_user(now_ms, position.built, position.fanned), True) if user is None else (user, False)

    def _merge(self, user_key: str, letter: MergePart, now_ms: int) -> None:
        user, is_new = self._row_or_new(user_key, now_ms)
        if not self._take(user, letter):
            return
        fold = self._fold
        totals = fold.position.totals
        totals.users += is_new
        old_timer_ms, now_ms = user.timer_ms, max(now_ms, user.now_ms)
        effects: list[Effect] = []
        row = identity.row_of_parts(user, letter)
        totals.merge_values_left_out += row == b"" and letter.parts > 1
        if row:
            other = decode_row(row)
            if letter.version != fold.position.version and not (build := fold.build_from(letter.version)).is_empty:
                users.decide_build(other, letter.device, now_ms, build)  # either partition may be ahead
            effects, left_out = users.decide_merge(user, user_key, letter.device, other, now_ms, fold.workspace)
            totals.merge_values_left_out += left_out
        elif is_new and row is not None:
            effects = users.decide_new(user, user_key, now_ms, fold.workspace)
        self._keep(user_key, user, old_timer_ms, effects)

    def _take(self, user: User, letter: MergePart | Forward) -> bool:
        known = len(user.links.taken) if isinstance(user.links, Devices) else 0
        is_known = isinstance(user.links, Devices) and letter.device in user.links.taken
        is_taken = identity.take(user, letter.device, letter.number)
        self._fold.position.totals.links_forgotten += not is_known and known >= identity.DEVICES_MAX
        return is_taken

    def _take_in(self, user_key: str, letter: Forward, now_ms: int) -> None:
        """A late letter to an anonymous user, taken by the known one as if it had been addressed to it."""
        user = self._row(user_key)
        if user is not None:
            if not self._take(user, letter):
                return
            self._keep(user_key, user, user.timer_ms, [])
        self._deliver(user_key, letter.letter, decode_letter(letter.letter), now_ms)
