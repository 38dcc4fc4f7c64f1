"""Two rows of one person become one: what a device's anonymous user did, as if the known user had done it."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from streams.errors import BadInput
from streams.events import JSONScalar
from streams.profiles.apply import SEEN_MAX, SEEN_SIZE, Changes
from streams.profiles.counters import AmountWindow, Counter, CountWindow
from streams.profiles.engaged import join_engaged
from streams.profiles.fields import check_length
from streams.profiles.hours import join_hours
from streams.profiles.room import (
    ROW_ATTRIBUTES_BYTES_MAX,
    ROW_ATTRIBUTES_MAX,
    ROW_CURRENCIES_MAX,
    ROW_NAMES_BYTES_MAX,
    ROW_NAMES_MAX,
    attribute_bytes,
    attributes_bytes,
    names_bytes,
    text_bytes,
)
from streams.profiles.row import User
from streams.segments.series import AmountSeries, CountSeries, Series, SeriesIndex

CONSENT: Final = ("email_subscribe", "push_subscribe")
"""The attributes that say what a user consents to."""


class Joined(NamedTuple):
    """The names of what changed in a row, as an event names them, and how many values it had no room for."""

    changes: Changes
    left_out: int


def merge_rows(user: User, other: User, index: SeriesIndex, now_ms: int) -> Joined:
    """Write everything countable of another row into a user's, and the attributes that the user has not.

    Counts and money are summed, first and last times the earlier and the later, windows and day counts joined;
    the user's own attributes win. Both rows must keep what `index` asks. Memberships, campaigns, fan-outs and
    messages are not touched (`streams/campaigns/merge.py`). Values beyond a row's limits are left out, in the other
    row's order.

    Args:
        user: the row that stays, changed in place.
        other: the row that goes; its parts may become the user's.
        index: the series that rows keep.
        now_ms: the time of the decision.
    """
    user.created_ms = min(user.created_ms, other.created_ms)
    changes: Changes = []
    left_out = _attributes(user, other, changes)
    left_out += _counters(user.events, other.events, "event:", changes)
    left_out += _counters(user.products, other.products, "product:", changes)
    if other.purchases is not None:
        user.purchases = _joined(user.purchases, other.purchases)
        changes.append("purchases")
    if other.sessions is not None:
        user.sessions = _joined(user.sessions, other.sessions)
        changes.append("sessions")
    left_out += _money(user, other, changes)
    _windows(user, other, {series.key: series for group in index.values() for series in group}, now_ms)
    user.seen = _seen(user.seen, other.seen)
    join_hours(user, other)
    join_engaged(user, other)
    return Joined(changes, left_out)


def consent_of(user: User) -> dict[str, bool | int | float | str | None]:
    """What a user has said about consent."""
    return {name: user.attributes[name] for name in CONSENT if name in user.attributes}


def _attributes(user: User, other: User, changes: Changes) -> int:
    left_out, size = 0, attributes_bytes(user.attributes)
    for path, value in other.attributes.items():
        if path in user.attributes:
            continue
        more = attribute_bytes(path, value)
        is_full = len(user.attributes) >= ROW_ATTRIBUTES_MAX or size + more > ROW_ATTRIBUTES_BYTES_MAX
        if is_full or _is_too_long(path, value):
            left_out += 1
            continue
        size += more
        user.attributes[path] = value
        changes.append(f"attribute:{path}")
    return left_out


def _is_too_long(path: str, value: JSONScalar) -> bool:
    """Whether a value is of a time when no length was asked for."""
    try:
        check_length(path, value)
    except BadInput:
        return True
    return False


def _money(user: User, other: User, changes: Changes) -> int:
    left_out = 0
    for currency, amount in other.money.items():
        known = user.money.get(currency)
        if known is None and len(user.money) >= ROW_CURRENCIES_MAX:
            left_out += 1
            continue
        user.money[currency] = amount if known is None else known + amount
        changes.append(f"money:{currency}")
    return left_out


def _counters(counters: dict[str, Counter], others: Mapping[str, Counter], kind: str, changes: Changes) -> int:
    left_out, size = 0, names_bytes(counters)
    for name, counter in others.items():
        known = counters.get(name)
        more = text_bytes(name) if known is None else 0
        if more and (len(counters) >= ROW_NAMES_MAX or size + more > ROW_NAMES_BYTES_MAX):
            left_out += 1
            continue
        size += more
        counters[name] = _joined(known, counter)
        changes.append(kind + name)
    return left_out


def _joined(known: Counter | None, counter: Counter) -> Counter:
    if known is None:
        return counter
    known.join(counter)
    return known


def _windows(user: User, other: User, wanted: Mapping[str, Series], now_ms: int) -> None:
    """Join the windows of series that rows keep; others go, as they do from every row."""
    for key, counts in other.counts.items():
        series = wanted.get(key)
        if isinstance(series, CountSeries):
            user.counts.setdefault(key, CountWindow(0, [])).join(counts, series.keep)
    for key, amounts in other.amounts.items():
        series = wanted.get(key)
        if isinstance(series, AmountSeries):
            user.amounts.setdefault(key, AmountWindow([], [])).join(amounts, now_ms, series.keep_ms)


def _seen(seen: bytes, other: bytes) -> bytes:
    """Both memories of applied ids, in order of their times, the newest of them."""
    if not other:
        return seen
    entries = [both[at : at + SEEN_SIZE] for both in (seen, other) for at in range(0, len(both), SEEN_SIZE)]
    entries.sort(key=lambda entry: entry[8:])
    return b"".join(entries[-SEEN_MAX:])
