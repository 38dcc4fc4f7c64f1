"""Retries: when an attempt that failed for now is made again, and when it was the last."""

from hashlib import blake2b
from typing import Final

RETRIES_MAX: Final = 5
"""After the first attempt."""
BASE_S: Final = 1.0
FACTOR: Final = 6
"""1, 6, 36, 216 and 1,296 s at most: five retries within half an hour."""
FACTOR_UNREACHABLE: Final = 16
"""1 s, 16 s, 4, 68 minutes and 18 hours at most: five retries within a day, where nobody is there to answer."""
RETRY_AFTER_S_MAX: Final = 3_600.0
RETRIES_EXHAUSTED: Final = "retries_exhausted: "
"""What the reason of a dispatch begins with when its last retry has failed."""
_JITTER_MIN: Final = 0.5
_JITTER_STEPS: Final = 1 << 32


def retry_delay_s(
    dispatch_id: str, attempt: int, retry_after_s: float | None = None, *, is_unreachable: bool = False
) -> float | None:
    """Seconds from the failure of an attempt (the first is 1) to the next; None when it was the last.

    The delay grows sixfold, or sixteenfold where the other side gives no answer at all (`is_unreachable`). It is
    spread over its upper half by a hash of dispatch and attempt, so that the same failure is always retried after
    the same time, and dispatches that failed together come back apart. What the other side asks for
    (`retry_after_s`) is honoured up to an hour, and never shortens it.
    """
    if attempt > RETRIES_MAX:
        return None
    digest = blake2b(f"{dispatch_id}/{attempt}".encode(), digest_size=4).digest()
    jitter = _JITTER_MIN + (1 - _JITTER_MIN) * int.from_bytes(digest, "big") / _JITTER_STEPS
    factor = FACTOR_UNREACHABLE if is_unreachable else FACTOR
    delay_s: float = BASE_S * float(factor ** (attempt - 1)) * jitter
    return max(delay_s, min(retry_after_s or 0.0, RETRY_AFTER_S_MAX))
