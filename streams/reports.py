"""Reports as a fold of the currents topic: what became of each campaign and variant, by hour and day in UTC.

A partition's counters are sums, so those of all partitions are added when they are read. Behaviours are passed
over by their type alone.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final, Literal, Protocol

import msgspec

from streams.campaigns.variants import CONTROL
from streams.errors import BadState

Unit = Literal["all", "day", "hour"]
"""How finely counts are kept: over all time, by the day, by the hour."""

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
BEHAVIOURS_MAX: Final = 4
"""Conversions of a campaign, the first of which is the primary one."""

HOURS_KEPT_S: Final = 35 * DAY_S
"""How long counters by the hour are kept, by the times in the records; those by the day are kept for ever."""

SEEN_KEPT_S: Final = 90 * DAY_S
"""A dispatch's first open and click are remembered so long: one that is later counts as unique again."""

RECIPIENTS_KEPT_S: Final = 3 * DAY_S
"""Who received a campaign on a day is remembered so long; a recipient is unique within the day."""


class Counts(msgspec.Struct, array_like=True):
    """What happened in one bucket; fields are only appended.

    Opens and clicks of machines stand apart, and the unique ones are of people, but for `unique_opens_all`.
    `conversions` are by their own time, `conversions_by_send` by that of the message. `revenue` is by currency.
    """

    sent: int = 0
    recipients: int = 0
    control: int = 0
    delivered: int = 0
    opens: int = 0
    unique_opens: int = 0
    unique_opens_all: int = 0
    machine_opens: int = 0
    clicks: int = 0
    unique_clicks: int = 0
    machine_clicks: int = 0
    unsubscribes: int = 0
    bounces: int = 0
    soft_bounces: int = 0
    spam: int = 0
    errors: int = 0
    aborts: int = 0
    conversions: list[int] = msgspec.field(default_factory=lambda: [0] * BEHAVIOURS_MAX)
    conversions_by_send: list[int] = msgspec.field(default_factory=lambda: [0] * BEHAVIOURS_MAX)
    revenue: dict[str, Decimal] = {}

    def add(self, other: "Counts") -> None:
        """Add another bucket's counts to these."""
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("conversions", "conversions_by_send"):
            sums = [one + two for one, two in zip(getattr(self, name), getattr(other, name), strict=True)]
            setattr(self, name, sums)
        for currency, amount in other.revenue.items():
            self.revenue[currency] = self.revenue.get(currency, Decimal(0)) + amount


NUMBERS: Final = tuple(name for name in Counts.__struct_fields__ if not name.startswith(("conversions", "revenue")))
"""The counts that are plain numbers."""


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """Where counts belong: a campaign, its variant (nothing for a single message), and the n-th hour or day of 1970.

    The number of `all` is 0.
    """

    campaign: str
    variant: str
    unit: Unit
    number: int


class About(msgspec.Struct, array_like=True):
    """What is known of a campaign but for counts: its channel, and the first and last second of its sends."""

    channel: str = ""
    first_sent_s: int = 0
    last_sent_s: int = 0

    def add(self, other: "About") -> None:
        """Take in what another partition knows."""
        self.channel = self.channel or other.channel
        self.first_sent_s = min(filter(None, (self.first_sent_s, other.first_sent_s)), default=0)
        self.last_sent_s = max(self.last_sent_s, other.last_sent_s)


class Seen(msgspec.Struct, array_like=True):
    """When a dispatch was first opened at all, opened by a person, and clicked by one, in seconds; 0 for never."""

    opened_s: int = 0
    opened_by_person_s: int = 0
    clicked_s: int = 0


class Table(Protocol):
    """The counters of a partition as the fold sees them: what it is given it may change, and the table keeps."""

    def counts(self, bucket: Bucket) -> Counts:
        """The counts of a bucket, empty at first."""

    def about(self, campaign: str) -> About:
        """What is known of a campaign."""

    def seen(self, dispatch_id: str) -> Seen:
        """What is remembered of a dispatch."""

    def received(self, campaign: str, user_id: str, day: int) -> bool:
        """Note that a user received a campaign on a day; whether that was known."""


class _Noted(msgspec.Struct):
    """What a record of the currents topic says to reports."""

    time: int
    user_id: str = ""
    campaign_name: str | None = None
    message_variation_name: str | None = None
    dispatch_id: str | None = None
    machine_open: str | None = None
    is_suspected_bot_click: bool | None = None
    conversion_behavior_index: int | None = None
    conversion_behavior: str | None = None


class _Behaviour(msgspec.Struct):
    """The parts of `conversion_behavior` that are counted."""

    sent_at: int | None = None
    revenue: str | None = None
    currency: str = ""


_decode: Final = msgspec.json.Decoder(_Noted).decode
_decode_behaviour: Final = msgspec.json.Decoder(_Behaviour).decode
_MESSAGES: Final = "users.messages."
_CAMPAIGNS: Final = "users.campaigns."
_COUNTED: Final[Mapping[str, str]] = {
    "Send": "sent",
    "Delivery": "delivered",
    "Unsubscribe": "unsubscribes",
    "Bounce": "bounces",
    "SoftBounce": "soft_bounces",
    "MarkAsSpam": "spam",
    "Failure": "errors",
    "Abort": "aborts",
}


def is_counted(event_type: str) -> bool:
    """Whether records of a type say anything to reports."""
    return event_type.startswith((_MESSAGES, _CAMPAIGNS))


def fold(table: Table, clock_s: int, event_type: str, value: bytes) -> int:
    """Count one record that `is_counted`; one of no campaign says nothing.

    Returns:
        The clock: the latest time that any record so far has had, by which what is remembered grows old.

    Raises:
        BadState: the bytes are no record of ours.
    """
    try:
        noted = _decode(value)
    except msgspec.DecodeError as error:
        raise BadState(f"a currents record of type {event_type} does not decode ({error})") from error
    if not noted.campaign_name:
        return clock_s
    clock_s = max(clock_s, noted.time)
    _Count(table, clock_s, noted).take(event_type)
    return clock_s


class _Count:
    """One record on its way into the buckets of its hour, of its day, and of all time."""

    def __init__(self, table: Table, clock_s: int, noted: _Noted) -> None:
        self._table = table
        self._clock_s = clock_s
        self._noted = noted
        self._campaign = noted.campaign_name or ""
        self._variant = noted.message_variation_name or ""
        self._own: list[Counts] | None = None

    def take(self, event_type: str) -> None:
        """Count it by its type."""
        place, _, kind = event_type.rpartition(".")
        if event_type.startswith(_CAMPAIGNS):
            if kind == "Conversion":
                self._convert()
            elif kind == "EnrollInControl":
                self._variant = CONTROL
                self._add("control")
                self._receive()
        elif kind == "Open":
            self._open(by_machine=self._noted.machine_open == "true")
        elif kind == "Click":
            self._click(by_machine=bool(self._noted.is_suspected_bot_click))
        elif kind in _COUNTED:
            self._add(_COUNTED[kind])
            if kind == "Send":
                self._send(place.removeprefix(_MESSAGES))

    def _buckets(self, time_s: int) -> list[Counts]:
        """An hour that is too old to be kept has none."""
        numbers: dict[Unit, int] = {"all": 0, "day": time_s // DAY_S}
        if time_s > self._clock_s - HOURS_KEPT_S:
            numbers["hour"] = time_s // HOUR_S
        name, variant = self._campaign, self._variant
        return [self._table.counts(Bucket(name, variant, unit, number)) for unit, number in numbers.items()]

    def _add(self, name: str) -> None:
        if self._own is None:
            self._own = self._buckets(self._noted.time)
        for counts in self._own:
            setattr(counts, name, getattr(counts, name) + 1)

    def _send(self, channel: str) -> None:
        about, time_s = self._table.about(self._campaign), self._noted.time
        about.channel = channel
        about.first_sent_s = min(about.first_sent_s or time_s, time_s)
        about.last_sent_s = max(about.last_sent_s, time_s)
        self._receive()

    def _receive(self) -> None:
        if not self._table.received(self._campaign, self._noted.user_id, self._noted.time // DAY_S):
            self._add("recipients")

    def _is_known(self, first_s: int) -> bool:
        """Whether something was seen before, and that is remembered."""
        return first_s > 0 and self._clock_s - first_s < SEEN_KEPT_S

    def _open(self, *, by_machine: bool) -> None:
        self._add("machine_opens" if by_machine else "opens")
        if self._noted.dispatch_id is None:
            return
        seen, time_s = self._table.seen(self._noted.dispatch_id), self._noted.time
        if not self._is_known(seen.opened_s):
            seen.opened_s = time_s
            self._add("unique_opens_all")
        if not by_machine and not self._is_known(seen.opened_by_person_s):
            seen.opened_by_person_s = time_s
            self._add("unique_opens")

    def _click(self, *, by_machine: bool) -> None:
        self._add("machine_clicks" if by_machine else "clicks")
        if by_machine or self._noted.dispatch_id is None:
            return
        seen = self._table.seen(self._noted.dispatch_id)
        if not self._is_known(seen.clicked_s):
            seen.clicked_s = self._noted.time
            self._add("unique_clicks")

    def _convert(self) -> None:
        at = self._noted.conversion_behavior_index or 0
        if not 0 <= at < BEHAVIOURS_MAX:
            return
        behaviour = _behaviour(self._noted.conversion_behavior)
        for counts in self._buckets(self._noted.time):
            counts.conversions[at] += 1
        for counts in self._buckets(self._noted.time if behaviour.sent_at is None else behaviour.sent_at):
            counts.conversions_by_send[at] += 1
        amount = _amount(behaviour.revenue)
        if amount is not None:
            for counts in self._buckets(self._noted.time):
                counts.revenue[behaviour.currency] = counts.revenue.get(behaviour.currency, Decimal(0)) + amount


def _behaviour(text: str | None) -> _Behaviour:
    """What another program wrote there, or nobody, counts as nothing said."""
    try:
        return _Behaviour() if text is None else _decode_behaviour(text)
    except msgspec.DecodeError:
        return _Behaviour()


def _amount(text: str | None) -> Decimal | None:
    try:
        amount = None if text is None else Decimal(text)
    except InvalidOperation:
        return None
    return amount if amount is not None and amount.is_finite() else None
