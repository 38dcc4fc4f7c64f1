"""What a channel is: how a message is compiled, and rendered to the very bytes that are sent."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from channels.render.engine import RenderContext, Renderer
from streams.definitions import Message
from streams.mailbox import OutcomeKind


class Envelope(msgspec.Struct, frozen=True):
    """What a rendered message needs beside its content."""

    dispatch_id: str
    campaign: str
    decided_ms: int


class Request(msgspec.Struct, frozen=True):
    """One rendered message: whom it goes to, and its bytes, the same for the same context."""

    dispatch_id: str
    address: str
    body: bytes


class Skipped(Exception):
    """The message cannot go to this user, such as one without an address; the text is the reason."""


Render = Callable[[Envelope, RenderContext], Request]


class Channel(msgspec.Struct, frozen=True):
    """One channel.

    Attributes:
        compile: parses a message's templates once and returns how to render it. Rendering raises Skipped,
            MessageAborted or RenderError for one message without harm to others.
    """

    name: str
    compile: Callable[[Message, Renderer], Render]


class Receipt(msgspec.Struct, frozen=True):
    """What a provider says of one request."""

    dispatch_id: str
    kind: OutcomeKind
    reason: str = ""


class Provider(Protocol):
    """Where a channel's requests go."""

    async def attempt(self, requests: list[Request]) -> list[Receipt]:
        """Send the requests; one receipt each. Raises OutsideFailing when nobody knows what was sent."""

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """After a crash: bring attempts to an end whose outcome is unknown, never silently twice."""
