"""What an event changes in a row, and the names of what changed."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from streams.errors import BadInput
from streams.events import Attributes, CustomEvent, JSONScalar, Properties, Purchase, Session
from streams.ids import event_id_hash
from streams.profiles.counters import AmountWindow, Counter, CountWindow, count_once
from streams.profiles.fields import TEXT_CHARS_MAX, check_length
from streams.profiles.hours import note_activity
from streams.profiles.room import (
    FREE_NAMES,
    ROW_ATTRIBUTES_BYTES_MAX,
    ROW_ATTRIBUTES_MAX,
    ROW_CURRENCIES_MAX,
    ROW_NAMES_BYTES_MAX,
    ROW_NAMES_MAX,
    attributes_bytes,
    names_bytes,
    text_bytes,
)
from streams.profiles.row import User
from streams.segments.series import AmountSeries, SeriesIndex
from streams.times import DAY_MS

SEEN_MAX: Final = 1_000
SEEN_SIZE: Final = 12
_NOTHING: Final = Decimal(0)

Changes = list[str]


def seen_before(user: User, event_id: str, now_ms: int) -> bool:
    """Whether the event id was applied to this user within 24 h; if not, remember it.

    At most the newest 1,000 ids are remembered. Ids stand as 64-bit hashes, so a wrong "seen" has a
    chance of about 1 in 10^16 for a full memory.
    """
    seen = user.seen
    if seen:
        oldest_s = (now_ms - DAY_MS) // 1000
        start = 0
        while start < len(seen) and int.from_bytes(seen[start + 8 : start + 12], "big") < oldest_s:
            start += SEEN_SIZE
        seen = seen[start:]
    mark = event_id_hash(event_id)
    at = seen.find(mark)
    while at >= 0 and at % SEEN_SIZE:
        at = seen.find(mark, at + 1)
    if at >= 0:
        user.seen = seen
        return True
    full = len(seen) >= SEEN_MAX * SEEN_SIZE
    user.seen = (seen[SEEN_SIZE:] if full else seen) + mark + (now_ms // 1000).to_bytes(4, "big")
    return False


def apply_attributes(user: User, event: Attributes) -> Changes:
    """Set or delete profile fields; only real changes are named, as `attribute:<path>`.

    Raises:
        BadInput: `row_limit` when the user would have more attributes than a row holds; nothing is changed.
    """
    attributes = user.attributes
    new = 0
    for path, value in event.values.items():
        if value is not None and path not in attributes:
            new += 1
        if type(value) is str and len(value) > TEXT_CHARS_MAX:  # of a letter that intake let through before it asked
            check_length(path, value, "row_limit")
    if len(attributes) + new > FREE_NAMES:
        _check_room(attributes, event, new)
    changes = []
    for path, value in event.values.items():
        old = attributes.get(path)
        if value is None:
            if attributes.pop(path, None) is None:
                continue
        elif type(old) is type(value) and old == value:
            continue
        else:
            attributes[path] = value
        changes.append(f"attribute:{path}")
    return changes


def _check_room(attributes: Mapping[str, JSONScalar], event: Attributes, new: int) -> None:
    """Refuse what would make many attributes too many, or too large; what makes them smaller is always fine."""
    if new and len(attributes) + new > ROW_ATTRIBUTES_MAX:
        raise BadInput("row_limit", "", f"the user would have more than {ROW_ATTRIBUTES_MAX} attributes")
    more = attributes_bytes(event.values)
    more -= attributes_bytes({path: attributes[path] for path in event.values if path in attributes})
    if more > 0 and attributes_bytes(attributes) + more > ROW_ATTRIBUTES_BYTES_MAX:
        raise BadInput("row_limit", "", f"the user's attributes would take more than {ROW_ATTRIBUTES_BYTES_MAX} bytes")


def apply_event(user: User, event: CustomEvent, index: SeriesIndex, now_ms: int) -> Changes:
    """Count a custom event and the series that watch it. Raises BadInput(`row_limit`)."""
    _count(user.events, event.name, event.time_ms, 1)
    change = f"event:{event.name}"
    if change in index:
        _count_series(user, index, change, event.time_ms, 1, _NOTHING, event.properties, now_ms)
    return [change]


def apply_purchase(user: User, event: Purchase, index: SeriesIndex, now_ms: int) -> Changes:
    """Count a purchase, its product and its money, and the series that watch them. Raises BadInput."""
    quantity = event.quantity
    money = user.money.get(event.currency)
    if money is None and len(user.money) >= ROW_CURRENCIES_MAX:
        raise BadInput("row_limit", "currency", f"the user has {ROW_CURRENCIES_MAX} different currencies already")
    _count(user.products, event.product_id, event.time_ms, quantity)
    if user.purchases is None:
        user.purchases = count_once(event.time_ms, quantity)
    else:
        user.purchases.add(event.time_ms, quantity)
    amount = event.price * quantity
    user.money[event.currency] = amount if money is None else money + amount
    changes = ["purchases", f"product:{event.product_id}", f"money:{event.currency}"]
    for change in changes:
        _count_series(user, index, change, event.time_ms, quantity, amount, event.properties, now_ms)
    return changes


def apply_session(user: User, event: Session) -> Changes:
    """Count the start of a session, and the hour of it; its end changes nothing yet."""
    if not event.started:
        return []
    note_activity(user, event.time_ms)
    if user.sessions is None:
        user.sessions = count_once(event.time_ms)
    else:
        user.sessions.add(event.time_ms)
    return ["sessions"]


def _count(counters: dict[str, Counter], name: str, time_ms: int, quantity: int) -> None:
    counter = counters.get(name)
    if counter is not None:
        counter.add(time_ms, quantity)
        return
    known = len(counters)
    if known >= ROW_NAMES_MAX:
        raise BadInput("row_limit", "", f"the user has {ROW_NAMES_MAX} different names of this kind already")
    if known >= FREE_NAMES and names_bytes(counters) + text_bytes(name) > ROW_NAMES_BYTES_MAX:
        raise BadInput(
            "row_limit", "", f"the user's names of this kind would take more than {ROW_NAMES_BYTES_MAX} bytes"
        )
    counters[name] = count_once(time_ms, quantity)


def _count_series(
    user: User,
    index: SeriesIndex,
    change: str,
    time_ms: int,
    quantity: int,
    amount: Decimal,
    properties: Properties,
    now_ms: int,
) -> None:
    for series in index.get(change, ()):
        if isinstance(series, AmountSeries):
            _amount_window(user, series, time_ms, amount, now_ms)
        elif series.matches is None or series.matches(properties):
            window = user.counts.get(series.key)
            if window is None:
                window = user.counts[series.key] = CountWindow(0, [])
            window.add(time_ms, quantity, series.keep)


def _amount_window(user: User, series: AmountSeries, time_ms: int, amount: Decimal, now_ms: int) -> None:
    window = user.amounts.get(series.key)
    if window is None:
        window = user.amounts[series.key] = AmountWindow([], [])
    window.add(time_ms, amount, now_ms, series.keep_ms)
