"""An agent that keeps nothing, for tests of the engine around it: each says only what it does otherwise."""

from streams import topics


class Still:
    """Reads events from their start."""

    reads = (topics.EVENTS,)

    async def open(self, partition: int) -> None:
        """Nothing to take up."""

    async def close(self, partition: int) -> None:
        """Nothing to forget."""

    def position(self, topic: str, partition: int) -> int:
        return 0

    async def rest(self) -> None:
        """Nothing is under way."""

    def go_on(self) -> None:
        """Nothing rested."""

    async def keep(self, topic: str, partition: int, finished: int) -> None:
        """Nothing is stored."""
