"""`GET /campaigns/<name>/preview?user=…`: a message as one user would get it, for whoever has the key."""

from html import escape
from typing import Any, Final

from aiohttp import hdrs, web

from agents.web.keys import Keys
from agents.web.replay import Asked
from streams.errors import BadSetting, HeadraceError

HEADERS: Final = {
    # The mail stands in a frame that runs nothing; its images are its own, and nothing else is loaded.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src https: http: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_SHOWN: Final = ("campaign", "variant", "user", "from", "to", "subject", "address")
_SHELL: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Preview</title>
<style>body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 1.5rem; }} dt {{ font-weight: 600; }}
iframe {{ width: 100%; height: 70vh; border: 1px solid #8a8a86; background: #fff; }}
pre {{ white-space: pre-wrap; }}</style></head>
<body><main><h1>Preview</h1><dl>{rows}</dl>{content}</main></body></html>
"""


class PreviewPage:
    """Shows one message; whatever a user or an author wrote is escaped, and HTML runs in a frame without rights."""

    def __init__(self, asked: Asked, keys: Keys) -> None:
        self._asked = asked
        self._keys = keys

    def add_routes(self, app: web.Application) -> None:
        """The path."""
        app.router.add_get("/campaigns/{name}/preview", self._preview)

    async def _preview(self, request: web.Request) -> web.Response:
        if not self._keys.allow(request.headers.get(hdrs.AUTHORIZATION, "")):
            return web.json_response({"message": "Invalid API key"}, status=401, headers=HEADERS)
        query = request.query
        wanted = {"campaign": request.match_info["name"], "user": query.get("user", "")}
        try:
            found: Any = await self._asked.ask("preview", {**wanted, "variant": query.get("variant", "")})
        except BadSetting as error:
            return web.json_response({"message": str(error)}, status=404, headers=HEADERS)
        except HeadraceError as error:
            return web.json_response({"message": str(error)}, status=503, headers=HEADERS)
        if found is None:
            return web.json_response({"message": "no worker holds this user now"}, status=503, headers=HEADERS)
        if "text/html" not in request.headers.get(hdrs.ACCEPT, ""):
            return web.json_response(found, headers=HEADERS)
        return web.Response(text=to_page(found), content_type="text/html", headers=HEADERS)


def to_page(found: dict[str, Any]) -> str:
    """The message as a page."""
    shown = [(name, str(found[name])) for name in _SHOWN if found.get(name)]
    shown.append(("would not be sent" if found["why_not"] else "would be sent", ", ".join(found["why_not"]) or "yes"))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in shown)
    content = ""
    if found.get("html"):
        content += f'<iframe sandbox="" title="The mail" srcdoc="{escape(found["html"])}"></iframe>'
    text = found.get("text") or found.get("body")
    if text:
        content += f"<pre>{escape(text)}</pre>"
    return _SHELL.format(rows=rows, content=content)
