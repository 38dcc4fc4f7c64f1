"""Variants: which of a campaign's messages a user gets, or that the user is left out to compare with."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from streams import ids
from streams.definitions import MESSAGES, CampaignDefinition, EmailMessage, Message
from streams.errors import BadDefinition
from streams.profiles.row import CampaignHistory

CONTROL: Final = "control"
"""What the choice of a user in the control group is called, in rows, exports and reports."""

WHOLE: Final = 100
_AGAIN: Final = 1


class Variant(msgspec.Struct, frozen=True):
    """One message of a campaign and its share in percent."""

    name: str
    percent: int
    message: Message


def read_message(channel: str, value: Mapping[str, Any], key: str) -> Message:
    """A message as its channel reads it. Raises BadDefinition, naming the key that it stands under."""
    try:
        message = msgspec.convert(value, MESSAGES[channel])
    except msgspec.ValidationError as error:
        raise BadDefinition(f"{key}: {error}") from None
    if isinstance(message, EmailMessage) and not (message.text or message.html):
        raise BadDefinition(f"{key}: give text, html or both")
    return message


def compile_variants(definition: CampaignDefinition) -> tuple[Variant, ...]:
    """The variants in the order they are written. Raises BadDefinition, naming the key."""
    found: dict[str, Variant] = {}
    for at, each in enumerate(definition.variants):
        if each.name == CONTROL:
            raise BadDefinition(f"variants[{at}].name: {CONTROL!r} is the control group's; choose another")
        if each.name in found:
            raise BadDefinition(f"variants[{at}].name: {each.name!r} is used twice")
        message = read_message(definition.channel, each.message, f"variants[{at}].message")
        found[each.name] = Variant(each.name, each.percent, message)
    total = definition.control + sum(each.percent for each in found.values())
    if found and total != WHOLE:
        raise BadDefinition(f"variants: percents and control make {total}; they must make {WHOLE}")
    return tuple(found.values())


def choose(
    campaign: str, variants: Sequence[Variant], control: int, user_key: str, history: CampaignHistory | None
) -> str:
    """The variant that a user gets: the one chosen first, for as long as the campaign has it.

    A user draws a number that only the key and the campaign decide, and gets the variant whose slice of the
    hundred it falls into, the control group's being the first. Who is in the control group stays there, and who
    has received anything never comes into it, whatever becomes of the percentages.

    Returns:
        A variant's name; `control` for no message at all; nothing where the campaign has a single message.
    """
    kept = "" if history is None else history.variant
    if kept == CONTROL or any(each.name == kept for each in variants):
        return kept
    if not (variants or control):
        return ""
    number = ids.share_of(campaign, user_key)
    if number < control:
        if history is None:
            return CONTROL
        number = control + ids.share_of(campaign, user_key, _AGAIN) % (WHOLE - control)
    return _at(variants, number - control)


def _at(variants: Sequence[Variant], number: int) -> str:
    """The variant whose slice holds the number, counted behind the control group's."""
    for each in variants:
        number -= each.percent
        if number < 0:
            return each.name
    return ""


def merged_choice(known: str, other: str) -> str:
    """The choice of a user whom two rows were about: the known one's, if it has one."""
    return known or other
