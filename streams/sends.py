"""A send: one message to one user, decided, not yet rendered."""

from typing import Final, Literal, TypeAlias

import msgspec

from streams.events import JSONScalar, Properties

Lane: TypeAlias = Literal["transactional", "bulk"]
"""Transactional sends answer what one user did; bulk ones are a fan-out's, and never delay the others."""

LANES: Final[tuple[Lane, Lane]] = ("transactional", "bulk")


SEND_BYTES_MAX: Final = 1024 * 1024
"""Of a send's JSON: one that reads more is aborted, for a broker would not take it, or what is rendered of it."""


class Send(msgspec.Struct, frozen=True, gc=False):
    """What the delivery agent needs to render and send one dispatch without reading the user again.

    `profile` and `custom` hold only the fields that the campaign's templates read, as they were when
    the send was decided. `version` is the workspace version whose templates apply, and `variant` the name of the
    one that the user gets; empty where the campaign has a single message. `lane` says which queue it waits in, from
    its topic to its provider. `refusal` is why it is to be aborted and not rendered; empty where it may go.
    """

    dispatch_id: str
    campaign: str
    channel: str
    user: str
    version: int
    decided_ms: int
    profile: dict[str, JSONScalar]
    custom: dict[str, JSONScalar]
    event_properties: Properties
    variant: str = ""
    lane: Lane = "transactional"
    refusal: str = ""


decode_send: Final = msgspec.json.Decoder(Send).decode
