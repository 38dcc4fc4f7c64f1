"""Webhooks as HTTP calls: each attempt the same bytes under the same key, so that the endpoint can tell repeats."""

from typing import Final

import msgspec

from channels.addresses import AddressRefused
from channels.channel import Limits, Receipt, Request
from channels.http import Answer, HttpClient, NoAnswer, Target, UrlRefused, read_url

IN_FLIGHT_MAX: Final = 4_096
PER_HOST_MAX: Final = 512
AT_ONCE_MAX: Final = 256
AT_ONCE_PER_HOST_MAX: Final = 32
BODY_CHARS_KEPT: Final = 256
_SUCCESS: Final = range(200, 300)
_RETRIED: Final = (408, 429)
_SERVER_FAILS: Final = range(500, 600)


class Call(msgspec.Struct):
    """A rendered webhook, as the dispatch keeps it."""

    dispatch_id: str
    method: str
    url: str
    headers: dict[str, str]
    body: str


_decode: Final = msgspec.json.Decoder(Call).decode


class Calls:
    """A provider that calls the URL of each webhook. Answers decide as in Braze.

    | answer | outcome |
    | --- | --- |
    | 2xx | sent |
    | 408, 429, 5xx, no answer | retry, by the rule of `streams/policy/retry.py` |
    | anything else, redirects too | failed |
    """

    name = "http"
    limits = Limits(IN_FLIGHT_MAX, PER_HOST_MAX, AT_ONCE_MAX, AT_ONCE_PER_HOST_MAX)

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._last: tuple[str, Target] | None = None

    async def attempt(self, request: Request) -> Receipt:
        """Make the call."""
        name = request.dispatch_id
        call = _decode(request.body)
        try:
            target = self._target(call.url)
            answer = await self._client.request(call.method, target, call.headers, call.body.encode(), request.proof)
        except (UrlRefused, AddressRefused) as error:
            return Receipt(name, "failed", f"url_refused: {error}")
        except NoAnswer as error:
            return Receipt(name, "retry", str(error), is_silent=True)
        if answer.status in _SUCCESS:
            return Receipt(name, "sent")
        if answer.status in _RETRIED or answer.status in _SERVER_FAILS:
            return Receipt(name, "retry", _told(answer), answer.retry_after_s)
        return Receipt(name, "failed", _told(answer))

    def _target(self, url: str) -> Target:
        """Where a URL goes; most calls go to the one before."""
        if self._last is None or self._last[0] != url:
            self._last = url, read_url(url, self._client.guard)
        return self._last[1]

    async def settle(self, requests: list[Request]) -> list[Receipt]:
        """Uncertain calls are made again: the key tells the endpoint that they may be repeats."""
        return [Receipt(request.dispatch_id, "retry", "worker_stopped: before the answer") for request in requests]

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _told(answer: Answer) -> str:
    """The status, its phrase and the beginning of the body, printable."""
    text = f"{answer.status} {answer.reason}".strip()
    body = answer.body[: BODY_CHARS_KEPT * 4].decode("utf-8", "replace")[:BODY_CHARS_KEPT].strip()
    return "".join(char if char.isprintable() else " " for char in (f"{text}: {body}" if body else text))
