"""Opens and clicks that no person made: mail programs that load ahead, image proxies, scanners of links."""

import re
from collections.abc import Mapping
from typing import Final

PREFETCH_MS: Final = 10_000
"""An image proxy that loads sooner after the decision to send than anybody reads has loaded ahead."""

_APPLE: Final = "Mozilla/5.0"
"""All that Apple's Mail Privacy Protection says of itself."""

_PROXIES: Final = re.compile(r"GoogleImageProxy|YahooMailProxy|ggpht\.com")
_SCANNERS: Final = re.compile(
    r"barracuda|proofpoint|mimecast|urldefense|safelinks|microsoft office|trend ?micro|symantec|messagelabs|sophos"
    r"|fortinet|cloudmark|zscaler|bitdefender|virustotal|slackbot|twitterbot|facebookexternalhit|whatsapp|telegrambot"
    r"|linkexpanding|bingpreview|skypeuripreview|headless|python-requests|curl/|wget/|go-http-client|libwww|bot\b",
    re.IGNORECASE,
)
_AHEAD: Final = {"purpose": "prefetch", "x-purpose": "preview", "x-moz": "prefetch", "sec-purpose": "prefetch"}


def is_machine(kind: str, headers: Mapping[str, str], since_ms: int) -> bool:
    """Whether an open or click looks like no person's.

    Args:
        kind: `open` or `click`.
        headers: of the request; the names in any case, if the mapping minds none.
        since_ms: from the decision to send until the request, by the door's clock.

    Apple's proxy loads every image, read or not, so its opens say nothing. Google's and Yahoo's load an image when a
    mail is read, but for the first seconds, in which nobody has read it. A click that loads ahead of the reader, or
    comes from a scanner of links, is suspected alike.
    """
    if any(headers.get(name, "").lower().startswith(value) for name, value in _AHEAD.items()):
        return True
    agent = headers.get("user-agent", "").strip()
    if not agent or _SCANNERS.search(agent):
        return True
    if kind == "open" and agent == _APPLE:
        return True
    return bool(_PROXIES.search(agent)) and since_ms < PREFETCH_MS
