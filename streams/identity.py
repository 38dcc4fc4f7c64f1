"""Anonymous users and known ones: what a device's user sends on once it is known whose the device is.

Letters go one way: an anonymous user, whose key begins with `device:`, writes to known users, and known users
write nothing but their consent back, to which nobody answers. So no letter goes further than one mailbox, and
none can go round in a circle.
"""

from bisect import bisect_right
from typing import Final

from streams.currents import orphan
from streams.effects import Effect, Post, SegmentChange
from streams.errors import BadState
from streams.events import Engagement, Unblock
from streams.ids import device_of
from streams.mailbox import Consent, Forward, Happening, Identify, Letter, MergePart
from streams.profiles.merge import consent_of
from streams.profiles.row import ROW_VERSION, Devices, Merged, Relation, User, encode_row

PART_BYTES_MAX: Final = 128 * 1024
"""Of a row in one letter: a slice of the log holds 1 MiB."""

ARRIVING_BYTES_MAX: Final = 3 * 1024 * 1024
"""Of rows in parts that a known user's row holds until their last part comes; one that does not fit is left out."""

RELATIONS_MAX: Final = 16
"""Users whose a device was in turn; beyond, the oldest but the first are forgotten, and theirs is their successor's."""

DEVICES_MAX: Final = 64
"""Devices that a known user's row remembers; beyond, the one that was linked first is forgotten."""


def decide_identify(user: User, user_key: str, letter: Identify, version: int, *, is_new: bool) -> list[Effect]:
    """A device's anonymous user is known: send what it is to the known user, once, and keep only where it went.

    A device that was somebody's already is merged into nobody else: from now on it is that user's, and what
    it did before remains the first one's.

    Args:
        user: the anonymous user's row, decided up to now; changed in place.
        user_key: its key.
        letter: whose the device is.
        version: the workspace version by which the row was decided.
        is_new: nothing was known of the device, so there is nothing to merge.
    """
    merged = user.links
    assert not isinstance(merged, Devices), "a known user is nobody's device"
    if merged is None:
        data = b"" if is_new else encode_row(user)
        effects: list[Effect] = [] if is_new else _leave(user, user_key, letter)
        _clear(user)
        user.links = merged = Merged([Relation(letter.time_ms, letter.external_id)])
        return effects + _parts(merged, user_key, letter.external_id, version, data)
    if merged.relations[-1].user == letter.external_id:
        return []
    since_ms = max(letter.time_ms, merged.relations[-1].since_ms)
    merged.relations.append(Relation(since_ms, letter.external_id))
    if len(merged.relations) > RELATIONS_MAX:
        del merged.relations[1]
    return _parts(merged, user_key, letter.external_id, version, b"")


def _leave(user: User, user_key: str, letter: Identify) -> list[Effect]:
    """The anonymous user is in no segment any more, and the warehouse hears who it is now."""
    device_id = device_of(user_key)
    assert device_id is not None
    left = [SegmentChange(name, user_key, entered=False, time_ms=user.now_ms) for name in sorted(user.memberships)]
    return [*left, orphan(user_key, device_id, letter.external_id, letter.time_ms, letter.cause)]


def _clear(user: User) -> None:
    """Leave nothing but consent and whether mail reaches it: its open dispatches are still asked about here.

    What fan-outs have chosen it for stays, until it is their turn (`FanSteps`).
    """
    empty = User(ROW_VERSION, user.incarnation, user.created_ms, user.now_ms)
    empty.attributes, empty.built, empty.fanned = dict(consent_of(user)), user.built, user.fanned
    empty.reach, empty.chosen = user.reach, user.chosen
    for name in User.__struct_fields__:
        setattr(user, name, getattr(empty, name))


def _parts(merged: Merged, user_key: str, known: str, version: int, data: bytes) -> list[Effect]:
    pieces = [data[at : at + PART_BYTES_MAX] for at in range(0, len(data), PART_BYTES_MAX)] or [b""]
    first = merged.sent
    merged.sent += len(pieces)
    return [
        Post(known, MergePart(user_key, first + part, part, len(pieces), version, piece))
        for part, piece in enumerate(pieces)
    ]


def send_on(user: User, user_key: str, letter: Letter, value: bytes) -> Post | None:
    """Where a letter to a merged user goes: a late event to whoever had the device then, all else to the first.

    What comes of a mail is the first's, too: the mail went to the merged user, whose address and dispatches are there.

    Returns:
        The letter for the known user; None if the user was never merged, so the letter is its own.
    """
    merged = user.links
    if not isinstance(merged, Merged):
        return None
    relations = merged.relations
    at = 0
    if len(relations) > 1 and isinstance(letter, Happening) and not isinstance(letter.event, Engagement | Unblock):
        at = max(0, bisect_right(relations, letter.event.time_ms, key=lambda relation: relation.since_ms) - 1)
    number = merged.sent
    merged.sent += 1
    return Post(relations[at].user, Forward(user_key, number, value))


def take(user: User, device: str, number: int) -> bool:
    """Note a letter of an anonymous user in a known one's row; False if it, or a later one, was taken in already."""
    devices = user.links
    assert not isinstance(devices, Merged), "an anonymous user is nobody's known user"
    if devices is None:
        devices = user.links = Devices()
    if number <= devices.taken.get(device, -1):
        return False
    devices.taken[device] = number
    if len(devices.taken) > DEVICES_MAX:
        oldest = next((name for name in devices.taken if name not in devices.arriving), None)
        if oldest is not None:
            del devices.taken[oldest]
    return True


def row_of_parts(user: User, letter: MergePart) -> bytes | None:
    """The row that has arrived with this part of it, empty for none; None while parts are still to come.

    One of several parts is empty where there was no room for all of them.

    Raises:
        BadState: a part is missing before this one.
    """
    if letter.parts == 1:
        return letter.data
    assert isinstance(user.links, Devices)
    arriving = user.links.arriving
    pieces = arriving.setdefault(letter.device, [])
    if len(pieces) != letter.part:
        raise BadState(f"part {letter.part} of {letter.parts} of a merged row came after {len(pieces)} parts")
    size = len(letter.data) + sum(len(piece) for each in arriving.values() for piece in each)
    pieces.append(letter.data if size <= ARRIVING_BYTES_MAX else b"")
    if len(pieces) < letter.parts:
        return None
    del arriving[letter.device]
    return b"".join(pieces) if all(pieces) else b""


def tell_consent(user: User, user_key: str, newcomer: tuple[str, User] | None = None) -> list[Effect]:
    """Tell the anonymous users that were merged into this one what it consents to, where that is news to them.

    `newcomer` is one that has just been merged, and its row.
    """
    devices = user.links
    if not isinstance(devices, Devices):
        return []
    consent = consent_of(user)
    who = list(devices.taken) if consent != devices.told else []
    devices.told = consent
    if newcomer is not None and not who and consent != consent_of(newcomer[1]):
        who = [newcomer[0]]
    return [Post(device, Consent(user_key, consent)) for device in who]


def hear_consent(user: User, letter: Consent) -> bool:
    """Keep what a known user consents to for the dispatches of the anonymous one; True if that changed the row."""
    merged = user.links
    if not isinstance(merged, Merged) or merged.relations[0].user != letter.user:
        return False
    user.attributes = dict(letter.values)
    return True
