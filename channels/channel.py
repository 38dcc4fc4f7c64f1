"""What a channel is: how a message is compiled, and rendered to the very bytes that are sent."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from channels.render.engine import RenderContext, Renderer
from channels.tracking import Links
from streams.definitions import Message
from streams.mailbox import OutcomeKind


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """What a rendered message needs beside its content.

    `default_url` is where a webhook without a url of its own goes; `links` are those back to our door, None where
    nothing is tracked.
    """

    dispatch_id: str
    campaign: str
    decided_ms: int
    default_url: str = ""
    links: Links | None = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """One rendered message: whom it goes to, and its bytes, the same for the same context.

    `host` names the other side where a channel has several, so that a slow one holds up no other. `proof` asks whether
    the dispatch is still this worker's, and raises Revoked when it is not: for providers that say more than one thing
    before the bytes themselves, between which a worker may stand still.
    """

    dispatch_id: str
    address: str
    body: bytes
    host: str = ""
    proof: Callable[[], Awaitable[None]] | None = None


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


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a provider says of one request.

    `retry_after_s` is the wait that the other side asks for; `is_silent` says that it gave no answer, so that
    fewer attempts are made at once until it does. `is_delivered` goes with `sent`: a server has taken the message over.
    """

    dispatch_id: str
    kind: OutcomeKind
    reason: str = ""
    retry_after_s: float | None = None
    is_silent: bool = False
    is_delivered: bool = False


class Limits(msgspec.Struct, frozen=True):
    """How many dispatches may be between attempt and outcome, and how many of them with the other side.

    In all and for one host: `in_flight` and `per_host` hide how long a commit takes, `at_once` and `at_once_per_host`
    (0: as many as in all) are what the other side sees.
    """

    in_flight: int
    per_host: int
    at_once: int
    at_once_per_host: int = 0


class Provider(Protocol):
    """Where a channel's requests go. `name` is kept with each attempt: another provider cannot settle it."""

    @property
    def name(self) -> str:
        """What the provider is called in a dispatch."""

    @property
    def limits(self) -> Limits:
        """How much it takes at once."""

    async def attempt(self, request: Request) -> Receipt:
        """Send one request. Raises OutsideFailing when the worker must stop, such as on a full disk.

        `retry` only where the other side surely did not take it, or will know a repeat by its key; `held`
        where nobody knows. Cancelling leaves the attempt for `settle`.
        """

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """After a crash: one receipt for each attempt whose outcome is unknown, never silently twice."""

    async def close(self) -> None:
        """Let go of what it keeps open."""
