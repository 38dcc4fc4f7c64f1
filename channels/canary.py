"""Where canaries go: to whoever waits for them, at the moment at which a message would leave."""

from collections.abc import Callable
from typing import Final

from channels.channel import Limits, Receipt, Request

AT_ONCE: Final = 16


class Canaries:
    """Implements `Provider` for the canary's channel."""

    name = "canary"
    limits = Limits(AT_ONCE, AT_ONCE, AT_ONCE)

    def __init__(self) -> None:
        self.arrived: Callable[[str], None] = lambda dispatch_id: None

    async def attempt(self, request: Request) -> Receipt:
        """Say that it arrived, by its dispatch id."""
        self.arrived(request.dispatch_id)
        return Receipt(request.dispatch_id, "sent")

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """One that a crash cut off was lost with whoever waited for it."""
        return [Receipt(each.dispatch_id, "aborted", "uncertain: the worker ended") for each in requests]

    async def close(self) -> None:
        """Nothing is open."""
