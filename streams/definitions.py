"""What operators and marketers write: segments and campaigns, checked one by one with the file's name."""

import sys
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from streams.codec import to_json
from streams.errors import BadDefinition
from streams.events import JSONValue
from streams.segments.filter import Duration, Name

TEMPLATE_CHARS_MAX: Final = 262_144

DefinitionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
MessagesPerSecond = Annotated[int, Meta(ge=1, le=1_000_000)]
MessagesPerMinute = Annotated[int, Meta(ge=1, le=60_000_000)]
Template = Annotated[str, Meta(max_length=TEMPLATE_CHARS_MAX)]


class SegmentDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Users for whom the filter tree holds; the name is the id."""

    name: Annotated[DefinitionName, Meta(description="The id of the segment.")]
    filter: Annotated[dict[str, JSONValue], Meta(description="Who is in it.")]
    description: Annotated[str, Meta(description="For people.")] = ""


class EventTrigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A custom event, with certain properties or any."""

    name: Annotated[Name, Meta(description="The name of the event.")]
    where: dict[str, JSONValue] | None = None


class PurchaseTrigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A purchase, of one product or any, with certain properties or any."""

    product: Annotated[Name | None, Meta(description="Only purchases of this product.")] = None
    where: dict[str, JSONValue] | None = None


class Trigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Exactly one of these happening to a user starts the campaign for that user."""

    segment_entered: Annotated[DefinitionName | None, Meta(description="The user enters this segment.")] = None
    segment_left: Annotated[DefinitionName | None, Meta(description="The user leaves this segment.")] = None
    event: Annotated[EventTrigger | None, Meta(description="The user does a custom event.")] = None
    purchase: Annotated[PurchaseTrigger | None, Meta(description="The user buys; {} for any purchase.")] = None
    attribute_changed: Annotated[Name | None, Meta(description="This attribute gets another value.")] = None


class Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """At most so many messages of the campaign in any second, or any minute, over all partitions and workers."""

    per_second: Annotated[MessagesPerSecond | None, Meta(description="Messages in any second.")] = None
    per_minute: Annotated[MessagesPerMinute | None, Meta(description="Messages in any minute.")] = None


class BestTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The time of day at which each user is there most, by sessions and opens; times as "10:00", in quotes."""

    fallback: Annotated[str, Meta(description="For users of whom too little is known.")]
    from_: str = msgspec.field(name="from", default="00:00")
    to: Annotated[str, Meta(description="Only times before this one.")] = "24:00"


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When the campaign goes to everyone in its audience: once (`at`) or again and again (`rrule` from `start`)."""

    at: Annotated[str | None, Meta(description="A time; without an offset as the clocks of time_zone show it.")] = None
    rrule: Annotated[str | None, Meta(description="A recurrence rule (RFC 5545), as FREQ=WEEKLY;BYDAY=MO.")] = None
    start: Annotated[str | None, Meta(description="What rrule counts from, as the clocks of time_zone show it.")] = None
    time_zone: Annotated[str, Meta(description="The zone of these times, and of users without one.")] = "UTC"
    local_time: Annotated[bool, Meta(description="The times are what each user's own clocks show.")] = False
    best_time: Annotated[BestTime | None, Meta(description="On that day, at each user's own best time.")] = None
    rate: Annotated[Rate | None, Meta(description="How fast it may be sent.")] = None


class EmailMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An email; every field is Liquid. At least one of `text` and `html` says something.

    `list_unsubscribe` is the `mailto:` or `https:` address behind a mail program's unsubscribe button, where it is
    to be the operator's own; by default it is the door's, in one click (RFC 8058), and `none` is none.
    """

    to: Annotated[Template, Meta(description="The address; a message without one is aborted.")]
    subject: Annotated[Template, Meta(description="One line.")]
    text: Annotated[Template, Meta(description="The plain text.")] = ""
    html: Annotated[Template, Meta(description="The HTML.")] = ""
    from_: Template = msgspec.field(name="from", default="")
    reply_to: Annotated[Template, Meta(description="Where answers go.")] = ""
    list_unsubscribe: Annotated[
        Template, Meta(description="A mailto: or https: address of yours, or none; by default the door's own.")
    ] = ""
    tracking: Annotated[bool, Meta(description="Whether its links and its opening are counted.")] = True


class WebhookMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An HTTP request; url, header values and body are Liquid. No url means the setting's url."""

    body: Annotated[Template, Meta(description="The body of the request.")]
    url: Annotated[Template, Meta(description="Where the request goes.")] = ""
    method: Literal["POST", "PUT", "DELETE", "GET"] = "POST"
    headers: Annotated[dict[str, Template], Meta(description="Headers by name.")] = {}


class LogMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line for the log: the channel of a workspace that has no provider yet."""

    text: Annotated[Template, Meta(description="The line.")]


Message: TypeAlias = EmailMessage | WebhookMessage | LogMessage
MESSAGES: Final[Mapping[str, type[Message]]] = {
    "email": EmailMessage,
    "log": LogMessage,
    "webhook": WebhookMessage,
}


VARIANTS_MAX: Final = 8


class VariantDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of a campaign's messages, and the share of users who get it."""

    name: Annotated[DefinitionName, Meta(description="What reports call it; not `control`.")]
    percent: Annotated[int, Meta(ge=1, le=100, description="Of the users who enter.")]
    message: Annotated[dict[str, Any], Meta(description="Its keys are those of the channel.")]


CONVERSIONS_MAX: Final = 4


class SessionTrigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The start of a session."""


class EngagementTrigger(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person opens the campaign's own mail, or follows a link of it."""


class ConversionDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a campaign was made for: exactly one of these, done within a time after the message."""

    name: Annotated[DefinitionName, Meta(description="For people; reports call it A to D by its place.")]
    event: Annotated[EventTrigger | None, Meta(description="The user does a custom event.")] = None
    purchase: Annotated[PurchaseTrigger | None, Meta(description="The user buys; {} for any purchase.")] = None
    session: Annotated[SessionTrigger | None, Meta(description="The user starts a session: {}.")] = None
    opens: Annotated[EngagementTrigger | None, Meta(description="The user opens the mail: {}.")] = None
    clicks: Annotated[EngagementTrigger | None, Meta(description="The user follows a link of the mail: {}.")] = None
    within: Annotated[Duration, Meta(description="From the message on, at most 30d.")] = "3d"


class CampaignDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One message, or several to compare, triggered by what a user does or becomes, or sent on a schedule."""

    name: Annotated[DefinitionName, Meta(description="The id of the campaign.")]
    channel: Annotated[Literal["email", "webhook", "log"], Meta(description="How the message leaves.")]
    trigger: Annotated[Trigger | None, Meta(description="What starts it; exactly one of the keys.")] = None
    schedule: Annotated[Schedule | None, Meta(description="When it is sent, in the place of a trigger.")] = None
    message: Annotated[
        dict[str, Any] | None,
        Meta(description="Its keys are those of the channel. Give this or variants."),
    ] = None
    audience: Annotated[
        dict[str, JSONValue] | None,
        Meta(description="Only users for whom this filter tree holds, before the event that triggers, or then."),
    ] = None
    delay: Annotated[Duration, Meta(description="How long after the event, at most 365d.")] = "0s"
    re_eligible_after: Annotated[
        Duration | None,
        Meta(description="A user may enter again so long after the last time; never again without."),
    ] = None
    description: Annotated[str, Meta(description="For people.")] = ""
    variants: Annotated[
        list[VariantDefinition],
        Meta(max_length=VARIANTS_MAX, description="Messages to compare; with control their percents make 100."),
    ] = []
    control: Annotated[
        int,
        Meta(ge=0, le=99, description="Percent of the users who enter that get no message, to compare with."),
    ] = 0
    conversions: Annotated[
        list[ConversionDefinition],
        Meta(max_length=CONVERSIONS_MAX, description="What counts as success, the primary one first."),
    ] = []


CHANNEL_KEY: Final = "channel"
"""The key of a campaign that says which message it has."""

KINDS: Final[Mapping[str, type[SegmentDefinition | CampaignDefinition]]] = {
    "segments": SegmentDefinition,
    "campaigns": CampaignDefinition,
}


class Definitions(msgspec.Struct, frozen=True):
    """A whole workspace, checked, in order of name; also the value of a definitions record."""

    segments: list[SegmentDefinition]
    campaigns: list[CampaignDefinition]
    paused: list[str] = []
    cancelled: dict[str, list[str]] = {}
    """Campaigns that were cancelled, with the digests of the schedules that are over by it, oldest first."""

    @property
    def digest(self) -> str:
        """What stands for its segments and campaigns; pausing and cancelling do not change it."""
        return blake2b(to_json([self.segments, self.campaigns]), digest_size=16).hexdigest()


ALL_CAMPAIGNS: Final = "*"

_decoder: Final = msgspec.json.Decoder(Definitions)


def decode_definitions(value: bytes) -> Definitions:
    """The workspace in a definitions record."""
    return _decoder.decode(value)


def _refuse_beyond_json(value: object, place: str) -> None:
    """Refuse what YAML can say and JSON, in which definitions are kept, cannot: it would come back as something else.

    Raises:
        BadDefinition: naming the key.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise BadDefinition(f"{place}: the key {key!r} is not text; put it in quotes".removeprefix(": "))
            _refuse_beyond_json(key, f"{place}, a key".removeprefix(", "))
            _refuse_beyond_json(each, f"{place}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            _refuse_beyond_json(each, f"{place}[{at}]")
    elif fault := _fault_of(value):
        raise BadDefinition(f"{place}: {fault}")


def _fault_of(value: object) -> str:
    """Why JSON cannot keep a value that holds no others; empty where it can."""
    if isinstance(value, str):
        is_cut = not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)
        return "holds half of a surrogate pair, which is no character; write the character" if is_cut else ""
    if isinstance(value, (int, float)):
        is_finite = -sys.float_info.max <= value <= sys.float_info.max  # NaN is not
        return "" if is_finite else "the number is not finite, or beyond 1.7e308; give one that is within"
    kind = type(value).__name__
    return "" if value is None else f"{kind} is no kind of value here; give text (in quotes), a number, a list, keys"


def read_definitions(files: Mapping[str, JSONValue]) -> Definitions:
    """Check the parsed files of a workspace folder: `segments/*.yaml`, `campaigns/*.yaml`.

    Raises:
        BadDefinition: every fault found, one per line, each with its file and key.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    faults = []
    for path in sorted(files):
        kind = path.split("/", 1)[0]
        try:
            if kind not in KINDS:
                raise BadDefinition(f"unknown kind {kind!r}; folders are {', '.join(KINDS)}")
            _refuse_beyond_json(files[path], "")
            definition = msgspec.convert(files[path], KINDS[kind])
            if definition.name in found[kind]:
                raise BadDefinition(f"name {definition.name!r} is used twice; names are ids")
            found[kind][definition.name] = definition
        except (msgspec.ValidationError, BadDefinition) as error:
            faults.append(f"{path}: {error}")
    if faults:
        raise BadDefinition("\n".join(faults))
    return Definitions(
        [found["segments"][name] for name in sorted(found["segments"])],
        [found["campaigns"][name] for name in sorted(found["campaigns"])],
    )
