"""The gate of a REST endpoint: a key, with the endpoint's permission."""

from typing import Final

from aiohttp import web

from agents.web.keys import Keys
from config import metrics

_SAID: Final = {"unknown": (401, "Invalid API key"), "denied": (403, "Access Denied")}


def refusal(request: web.Request, keys: Keys, scope: str) -> web.Response | None:
    """Nothing for whoever may, and counts the request; else 401 without a key, 403 without the permission.

    `scope` is a permission of `streams.api_keys.SCOPES`. No answer repeats what was offered.
    """
    verdict = keys.verdict(request.headers.get("Authorization", ""), scope)
    metrics.DOOR_REQUESTS.labels(scope, verdict).inc()
    if verdict == "allowed":
        return None
    status, message = _SAID[verdict]
    return web.json_response({"message": message}, status=status)
