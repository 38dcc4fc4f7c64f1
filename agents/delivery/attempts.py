"""One attempt at a provider, so that a message which breaks the provider's own code costs no other, and no worker."""

import traceback
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from channels.channel import Provider, Receipt, Request
from config import metrics
from streams.errors import HeadraceError

FRAMES_MAX: Final = 8
_log: Final = structlog.get_logger("headrace")


async def attempted(
    provider: Provider, channel: str, request: Request, proof: Callable[[], Awaitable[None]]
) -> Receipt:
    """What the provider says of a request; held where its code raised what it does not know, and nobody else knows.

    A worker that ended instead would attempt the same request again at its next start, and end again. Errors that are
    raised on purpose stop it, as before: a disk that refuses, a state that must not be, a partition that is another's.
    """
    try:
        return await provider.attempt(request)
    except (HeadraceError, AssertionError):
        raise
    except Exception as error:  # noqa: BLE001  # the one place where an error of ours is bounded to its dispatch
        broken = error
    await proof()  # whoever does not own the partition any more says nothing, and ends as it always did
    metrics.ATTEMPTS_BROKEN.labels(channel).inc()
    kind, where = type(broken).__name__, _where(broken)
    # Only kind and place: the text of an error may quote the user's data.
    _log.error("attempt_broken", dispatch_id=request.dispatch_id, channel=channel, error=kind, where=where)
    return Receipt(request.dispatch_id, "held", f"uncertain: the attempt ended in an error of ours, {kind}")


def _where(error: Exception) -> list[str]:
    """The innermost places in code that it came from: files and lines, no values."""
    frames = traceback.extract_tb(error.__traceback__, -FRAMES_MAX)
    return [f"{each.filename}:{each.lineno} {each.name}" for each in frames]
