"""Token buckets: how many requests each of many callers may make, in bounded memory."""

from collections import OrderedDict

Bucket = tuple[float, float]
"""Tokens left, and the second at which that was so."""


class Buckets:
    """One bucket per key, full at first; at most `keys_max` are remembered, the least recently asked goes first."""

    def __init__(self, rate_per_s: float, burst: float, keys_max: int) -> None:
        """Each key may take `burst` at once and `rate_per_s` in the long run."""
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, now_s: float) -> float:
        """Take a token and return 0; or, where there is none, take nothing and return the seconds until there is."""
        left, at_s = self._buckets.pop(key, (self._burst, now_s))
        left = min(self._burst, left + max(0.0, now_s - at_s) * self._rate_per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._rate_per_s
        self._buckets[key] = (left if wait_s else left - 1, now_s)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return wait_s
