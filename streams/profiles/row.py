"""One user's row: everything that is known and precomputed about a user."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar, get_type_hints

import msgspec

from streams.errors import BadState
from streams.events import JSONScalar, Properties
from streams.profiles.counters import AmountWindow, Counter, CountWindow

ROW_VERSION: Final = 1

Row = TypeVar("Row", "User", "_Start")


class OccurrenceId(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An occurrence of a schedule, in whatever partition: the schedule's digest, and what the clocks show then."""

    plan: str
    local_ms: int

    def is_behind(self, other: "OccurrenceId") -> bool:
        """Whether it is the other one, or a later one of the same schedule."""
        return self.plan == other.plan and self.local_ms >= other.local_ms


class CampaignHistory(msgspec.Struct, array_like=True, gc=False):
    """How often a user entered a campaign, when it was last decided, and the variant that was chosen first.

    `variant` is empty where there was none to choose, and `control` in the control group. `occurrence` is the newest of
    a schedule that goes by each user's clocks; None of others, and in rows from before that was written.
    """

    entries: int
    last_ms: int
    variant: str = ""
    occurrence: OccurrenceId | None = None


class Waiting(msgspec.Struct, array_like=True, gc=False):
    """An entry into a campaign whose delay has not passed yet; due at `due_ms`.

    `entry` 0: of a schedule that goes by each user's clocks; whether and how often the user enters is decided then.
    `occurrence` is which of its occurrences; None in rows from before that was written, and of what has a delay.
    """

    due_ms: int
    campaign: str
    entry: int
    event_properties: Properties
    occurrence: OccurrenceId | None = None

    @property
    def plan(self) -> str:
        """The digest of the schedule that it is of; empty where that is not known."""
        return "" if self.occurrence is None else self.occurrence.plan

    def is_of(self, campaign: str, occurrence: OccurrenceId | None) -> bool:
        """Whether it waits for this occurrence of a schedule."""
        return occurrence is not None and self.occurrence == occurrence and self.campaign == campaign


class Engaged(msgspec.Struct, array_like=True, gc=False):
    """A user's opens and clicks of one campaign; `open_ms` and `click_ms` are the last ones by a person, 0 for none.

    `opens` counts the opens of machines too, as Braze does; `machine_opens` says how many of them there are.
    """

    opens: int = 0
    machine_opens: int = 0
    clicks: int = 0
    open_ms: int = 0
    click_ms: int = 0
    last_ms: int = 0


class Reachability(msgspec.Struct, array_like=True, gc=False):
    """What mail servers and recipients have said of the user's address.

    `blocked` is the address that must not be mailed any more, `why` is `hard_bounced` or `marked_as_spam`; another
    address of the user is not meant. `changed_ms` is when the user last chose a subscription by a link of ours.
    """

    blocked: str = ""
    why: str = ""
    blocked_ms: int = 0
    changed_ms: int = 0


class OpenDispatch(msgspec.Struct, array_like=True, gc=False):
    """A dispatch whose outcome is awaited, or has been final for less than 72 h (73 h of a user who goes on).

    `outcome` is the newest one told, and `attempt` the attempt that it is of.
    """

    campaign: str
    channel: str
    decided_ms: int
    outcome: str = ""
    final_ms: int = 0
    attempt: int = 0
    variant: str = ""


class Relation(msgspec.Struct, array_like=True, gc=False):
    """From a time on a device is that of a known user."""

    since_ms: int
    user: str


class Merged(msgspec.Struct, array_like=True, tag="merged", gc=False):
    """What is left of a device's anonymous user: whose the device is, and since when.

    `relations` ascend by time; the first is the user whom everything was merged into. `sent` counts the
    letters that went to them.
    """

    relations: list[Relation]
    sent: int = 0


class Devices(msgspec.Struct, array_like=True, tag="devices", gc=False):
    """The devices of a known user: per key of their anonymous user the number of its newest letter taken in.

    `arriving` holds, per such key, the parts of a row of which the last has not come; `told` is the consent
    that the anonymous users were told of last.
    """

    taken: dict[str, int] = {}
    arriving: dict[str, list[bytes]] = {}
    told: dict[str, JSONScalar] = {}


class OpenWindow(msgspec.Struct, array_like=True, gc=False):
    """The last entry into a campaign with conversions: when it was decided, and which of them it has, as bits."""

    at_ms: int
    entry: int
    variant: str = ""
    done: int = 0


class User(msgspec.Struct, array_like=True, gc=False):
    """One user. Fields are only ever appended, so that rows of older versions stay readable.

    `now_ms` is the time of the last decision on this row and never falls. `timer_ms` is the one armed
    timer; no predicate and no delay changes before it without a record. `seen` holds the ids applied
    within 24 h as 12-byte entries: 8 bytes of hash, 4 bytes of seconds. `built` is the workspace version
    whose rules the row was last written by, as far as a scan has to know (`Position.built`). `links` ties
    anonymous and known users; None for whoever has neither been identified nor has a device. `hours` is when
    in the day the user is there (`hours.py`); None where nothing is known. `fanned` counts the fan-outs of the
    partition that the row was last written by; `chosen` are the numbers of those that have found the user in
    their audience and not sent yet. `windows` are by campaign, and closed by the first event that comes when they
    are over.
    """

    version: int
    incarnation: int
    created_ms: int
    now_ms: int
    timer_ms: int | None = None
    attributes: dict[str, JSONScalar] = {}
    events: dict[str, Counter] = {}
    products: dict[str, Counter] = {}
    purchases: Counter | None = None
    sessions: Counter | None = None
    money: dict[str, Decimal] = {}
    counts: dict[str, CountWindow] = {}
    amounts: dict[str, AmountWindow] = {}
    memberships: dict[str, int] = {}
    campaigns: dict[str, CampaignHistory] = {}
    waiting: list[Waiting] = []
    dispatches: dict[str, OpenDispatch] = {}
    seen: bytes = b""
    built: int = -1
    links: Merged | Devices | None = None
    hours: bytes | None = None
    fanned: int = 0
    chosen: list[int] = []
    windows: dict[str, OpenWindow] = {}
    engaged: dict[str, Engaged] = {}
    reach: Reachability | None = None


class _Start(msgspec.Struct, array_like=True, gc=False):
    """The fields up to the timer."""

    version: int
    incarnation: int
    created_ms: int
    now_ms: int
    timer_ms: int | None = None


_CONSENT: Final = ("version", "attributes", "reach")
# The fields of consent, typed; what lies between them is passed over without being decoded.
_Consent: Final = msgspec.defstruct(
    "_Consent",
    [(name, get_type_hints(User)[name] if name in _CONSENT else msgspec.Raw, None) for name in User.__struct_fields__],
    array_like=True,
    gc=False,
)

_encode: Final = msgspec.msgpack.Encoder(decimal_format="string").encode
_decoder: Final = msgspec.msgpack.Decoder(User)
_consent_decoder: Final = msgspec.msgpack.Decoder(_Consent)
_start_decoder: Final = msgspec.msgpack.Decoder(_Start)
_starts_decoder: Final = msgspec.msgpack.Decoder(list[_Start])
_ARRAY_32: Final = b"\xdd"  # of msgpack: an array, whose length follows in 32 bits


def new_user(now_ms: int, built: int = -1, fanned: int = 0) -> User:
    """The row of a user's first record."""
    return User(ROW_VERSION, 1, now_ms, now_ms, built=built, fanned=fanned)


def encode_row(user: User) -> bytes:
    """The stored form of a row: the same row always gives the same bytes."""
    return _encode(user)


def decode_row(data: bytes) -> User:
    """Read a stored row.

    Raises:
        BadState: the bytes are no row, or of a newer version than this program knows.
    """
    return _decode(_decoder, data)


def decode_consent(data: bytes) -> tuple[dict[str, JSONScalar], Reachability | None] | None:
    """Only a stored row's attributes and what is known of its address; None where the row cannot be read."""
    try:
        row: Any = _consent_decoder.decode(data)
    except msgspec.DecodeError:
        return None
    if row.version > ROW_VERSION:
        return None
    return row.attributes or {}, row.reach


def decode_timer(data: bytes) -> int | None:
    """Only the timer of a stored row, for whoever reads many. Raises BadState like `decode_row`."""
    return _decode(_start_decoder, data).timer_ms


def decode_timers(rows: Sequence[bytes]) -> list[int | None]:
    """The timers of many stored rows, in half the time of one by one. Raises BadState like `decode_row`."""
    try:
        found = _starts_decoder.decode(b"".join((_ARRAY_32, len(rows).to_bytes(4, "big"), *rows)))
        if all(start.version <= ROW_VERSION for start in found):
            return [start.timer_ms for start in found]
    except msgspec.DecodeError:
        pass  # to be told by the one that it is
    return [decode_timer(data) for data in rows]


def _decode(decoder: msgspec.msgpack.Decoder[Row], data: bytes) -> Row:
    try:
        row = decoder.decode(data)
    except msgspec.DecodeError as error:
        raise BadState(f"a user row of {len(data)} bytes does not decode ({error}); restore it from the log") from error
    if row.version > ROW_VERSION:
        raise BadState(f"a user row has version {row.version}, this program knows up to {ROW_VERSION}; upgrade it")
    return row
