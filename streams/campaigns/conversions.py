"""Conversions: what a user does after a message, within a window, that the campaign was made for."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from streams.definitions import ConversionDefinition
from streams.errors import BadDefinition
from streams.events import JSONValue, Properties
from streams.profiles.row import OpenWindow, User
from streams.segments.condition import compile_where
from streams.times import SECOND_MS, parse_duration

WINDOW_MAX_MS: Final = parse_duration("30d")
SESSION: Final = "session"
"""What the start of a session signals."""

OPENS: Final = "opens"
CLICKS: Final = "clicks"
"""What a person who opens a mail, or follows a link of it, signals to the campaign of that mail."""

KINDS: Final = ("event", "purchase", "session", OPENS, CLICKS)
_OF_MAILS: Final = {OPENS: "Opens Email", CLICKS: "Clicks Email"}


class Conversion(msgspec.Struct, frozen=True):
    """One conversion, compiled. `index` is 0 for the primary one; `behaviour` is how exports describe it."""

    name: str
    index: int
    signal: str
    matches: Callable[[Properties], bool] | None
    within_ms: int
    behaviour: Mapping[str, JSONValue]


def compile_conversions(definitions: list[ConversionDefinition], channel: str) -> tuple[Conversion, ...]:
    """A campaign's conversions in the order they are written. Raises BadDefinition, naming the key."""
    found: dict[str, Conversion] = {}
    for at, each in enumerate(definitions):
        key = f"conversions[{at}]"
        if each.name in found:
            raise BadDefinition(f"{key}.name: {each.name!r} is used twice")
        within_ms = parse_duration(each.within)
        if not 0 < within_ms <= WINDOW_MAX_MS:
            raise BadDefinition(f"{key}.within: {each.within} is not between 1s and 30d")
        signal, where, behaviour = _kind(each, key)
        if signal in _OF_MAILS and channel != "email":
            raise BadDefinition(
                f"{key}.{signal}: goes with the channel email; nobody tells whether a {channel} is opened"
            )
        window = {"name": each.name, "window": within_ms // SECOND_MS}
        found[each.name] = Conversion(each.name, at, signal, compile_where(where), within_ms, behaviour | window)
    return tuple(found.values())


def _kind(each: ConversionDefinition, key: str) -> tuple[str, dict[str, JSONValue] | None, dict[str, JSONValue]]:
    """What signals it, on which conditions, and how exports describe it."""
    given = [kind for kind in KINDS if getattr(each, kind) is not None]
    if len(given) != 1:
        raise BadDefinition(f"{key}: give exactly one of {', '.join(KINDS)}")
    if given[0] in _OF_MAILS:
        return given[0], None, {"type": _OF_MAILS[given[0]]}
    if each.event is not None:
        behaviour = {"type": "Performs Custom Event", "custom_event_name": each.event.name}
        return f"event:{each.event.name}", each.event.where, behaviour
    if each.purchase is None:
        return SESSION, None, {"type": "Starts Session"}
    product = each.purchase.product
    if product is None:
        return "purchases", each.purchase.where, {"type": "Makes Purchase"}
    return f"product:{product}", each.purchase.where, {"type": "Makes Purchase", "product": product}


def open_window(user: User, campaign: str, entry: int, variant: str, now_ms: int) -> None:
    """An entry's message was decided: from now on conversions are this entry's, whatever came of those before."""
    user.windows[campaign] = OpenWindow(now_ms, entry, variant)


def merged_windows(known: Mapping[str, OpenWindow], other: Mapping[str, OpenWindow]) -> dict[str, OpenWindow]:
    """The windows of a user whom two rows were about: of each campaign the last, of two at once the known one's."""
    found = dict(known)
    for campaign, window in other.items():
        if campaign not in found or window.at_ms > found[campaign].at_ms:
            found[campaign] = window
    return found
