"""How often links of one message may be followed before what follows is no person's doing, and is not counted."""

from collections import OrderedDict
from typing import Final

from config.clock import Clock

HITS_MAX: Final = 60
"""Of one message's links in a minute."""

CHOICES_MAX: Final = 20
"""Forms about a subscription by one message's links in a minute, those that change nothing, too."""

MESSAGES_MAX: Final = 20_000
"""Messages whose hits are remembered, the latest ones."""

WINDOW_MS: Final = 60_000


class Hits:
    """Counts per message and minute, in bounded memory: whoever comes back after many others counts anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()

    def allow(self, dispatch_id: str, *, choice: bool = False) -> bool:
        """Count one hit; False if the message has had its share of this minute."""
        now_ms, key = self._clock.now_ms(), (dispatch_id, choice)
        found = self._counts.pop(key, None)
        if found is None or not 0 <= now_ms - found[0] < WINDOW_MS:
            found = [now_ms, 0]
        found[1] += 1
        self._counts[key] = found
        if len(self._counts) > MESSAGES_MAX:
            self._counts.popitem(last=False)
        return found[1] <= (CHOICES_MAX if choice else HITS_MAX)
