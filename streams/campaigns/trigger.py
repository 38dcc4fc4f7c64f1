"""Campaigns compiled: what starts one, who may enter, and what it reads."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from streams.campaigns.conversions import Conversion, compile_conversions
from streams.campaigns.schedule import Plan, compile_schedule
from streams.campaigns.template_fields import TemplateFields, fields_joined, fields_read
from streams.campaigns.variants import Variant, compile_variants, read_message
from streams.definitions import CampaignDefinition, Message, Trigger
from streams.errors import BadDefinition
from streams.events import Properties
from streams.profiles.row import CampaignHistory, OccurrenceId, User
from streams.segments.condition import compile_where
from streams.segments.filter import Compiled
from streams.segments.predicate import compile_tree
from streams.times import parse_duration

DELAY_MAX_MS: Final = parse_duration("365d")


class Campaign(msgspec.Struct, frozen=True):
    """A campaign ready to be decided.

    `signal` is what starts it: `event:<name>`, `purchases`, `product:<id>`, `attribute:<path>`,
    `entered:<segment>` or `left:<segment>`; empty where `plan` says when. `audience` is None for everyone. `messages`
    are by variant, with an empty name where there is one message; `reads` is what any of them reads. `control` is in
    percent.
    """

    name: str
    channel: str
    signal: str
    matches: Callable[[Properties], bool] | None
    audience: Compiled | None
    delay_ms: int
    re_eligible_after_ms: int | None
    messages: Mapping[str, Message]
    reads: TemplateFields
    variants: tuple[Variant, ...] = ()
    control: int = 0
    plan: Plan | None = None
    conversions: tuple[Conversion, ...] = ()


def compile_campaign(definition: CampaignDefinition) -> Campaign:
    """Compile one campaign. Raises BadDefinition, naming the key."""
    if (definition.message is None) == (not definition.variants):
        raise BadDefinition("give exactly one of message and variants")
    variants = compile_variants(definition)
    messages = {variant.name: variant.message for variant in variants}
    if definition.message is not None:
        messages = {"": read_message(definition.channel, definition.message, "message")}
    delay_ms = parse_duration(definition.delay)
    if delay_ms > DELAY_MAX_MS:
        raise BadDefinition(f"delay: {definition.delay} is more than 365d")
    signal, where, plan = _start(definition)
    after = definition.re_eligible_after
    return Campaign(
        definition.name,
        definition.channel,
        signal,
        compile_where(where),
        compile_tree(definition.audience, "audience") if definition.audience else None,
        delay_ms,
        None if after is None else parse_duration(after),
        messages,
        _fields(messages.values()),
        variants,
        definition.control,
        plan,
        compile_conversions(definition.conversions, definition.channel),
    )


def _start(definition: CampaignDefinition) -> tuple[str, dict[str, object] | None, Plan | None]:
    """What starts it: a signal with conditions, or a plan."""
    trigger, schedule = definition.trigger, definition.schedule
    if trigger is not None and schedule is None:
        return *_signal(trigger), None
    if schedule is None or trigger is not None:
        raise BadDefinition("give exactly one of trigger, schedule")
    if parse_duration(definition.delay):
        raise BadDefinition("delay: goes with a trigger; a schedule says itself when")
    return "", None, compile_schedule(schedule)


def _signal(trigger: Trigger) -> tuple[str, dict[str, object] | None]:
    given = [name for name in trigger.__struct_fields__ if getattr(trigger, name) is not None]
    if len(given) != 1:
        raise BadDefinition(f"trigger: give exactly one of {', '.join(trigger.__struct_fields__)}")
    if trigger.event is not None:
        return f"event:{trigger.event.name}", trigger.event.where
    if trigger.purchase is not None:
        product = trigger.purchase.product
        return ("purchases" if product is None else f"product:{product}"), trigger.purchase.where
    if trigger.segment_entered is not None:
        return f"entered:{trigger.segment_entered}", None
    if trigger.segment_left is not None:
        return f"left:{trigger.segment_left}", None
    return f"attribute:{trigger.attribute_changed}", None


def _fields(messages: Iterable[Message]) -> TemplateFields:
    """All that the messages' templates read; each is scanned by itself and by the rules it is compiled by."""
    parts = []
    for message in messages:
        for name, value in msgspec.structs.asdict(message).items():
            texts = value.values() if isinstance(value, dict) else [value] if isinstance(value, str) else []
            html = name == "html"
            parts += [fields_read(text, html=html) for text in texts]
    return fields_joined(parts)


def is_eligible(history: CampaignHistory | None, campaign: Campaign, now_ms: int) -> bool:
    """Whether a user may enter (again): never entered, or `re_eligible_after` has passed since the last.

    A last entry of later than now, which a merge brings from a partition whose clock is ahead, counts as of now.
    """
    if history is None:
        return True
    after = campaign.re_eligible_after_ms
    return after is not None and max(0, now_ms - history.last_ms) >= after


def has_had(history: CampaignHistory | None, occurrence: OccurrenceId | None) -> bool:
    """Whether an occurrence of a schedule by each user's clocks, or one behind it, was decided for the user already.

    One person may be due at two times, as an anonymous user and as a known one, which tell nothing.
    """
    newest = None if history is None else history.occurrence
    return newest is not None and occurrence is not None and newest.is_behind(occurrence)


def accepts(campaign: Campaign, user: User, now_ms: int) -> bool:
    """Whether the user may enter on this state: eligible again, and in the audience."""
    if not is_eligible(user.campaigns.get(campaign.name), campaign, now_ms):
        return False
    return campaign.audience is None or campaign.audience.test(user, now_ms)
