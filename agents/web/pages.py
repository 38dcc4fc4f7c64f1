"""The pages behind a message's links: no script, nothing from elsewhere, nothing that was typed by anybody."""

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

_FOLDER: Final = Path(__file__).parent / "page"
_STYLE: Final = (_FOLDER / "links.css").read_text("utf-8")
_SHELL: Final = (_FOLDER / "links.html").read_text("utf-8")
_STYLE_HASH: Final = b64encode(sha256(_STYLE.encode()).digest()).decode()
IMAGE: Final = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00"
    b"\x02\x02D\x01\x00;"
)
"""One transparent pixel."""

PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": "noindex, nofollow",
        "Cache-Control": "no-store",
    }
)
_PREFERENCES: Final = """<p>Which emails do you want?</p>
<form method="post">
<fieldset><legend>Emails</legend>
<label><input type="radio" name="state" value="opted_in" required> Yes, all of them</label>
<label><input type="radio" name="state" value="subscribed"> The usual ones</label>
<label><input type="radio" name="state" value="unsubscribed"> None</label>
</fieldset>
<button type="submit">Save</button>
</form>"""
_UNSUBSCRIBE: Final = """<p>You will get no more emails of this kind at this address.</p>
<form method="post">
<input type="hidden" name="confirm" value="yes">
<button type="submit">Unsubscribe</button>
</form>"""
_PAGES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "unsubscribe": ("Unsubscribe?", _UNSUBSCRIBE),
        "unsubscribed": (
            "You are unsubscribed",
            '<p role="status">You will get no more of these emails. It may take a moment to reach every system.</p>',
        ),
        "preferences": ("Your emails", _PREFERENCES),
        "saved": ("Saved", '<p role="status">Your choice is kept, and holds from now on.</p>'),
        "later": (
            "Please try again",
            '<p role="alert">Your choice could not be kept just now. Go back and send it again in a moment.</p>',
        ),
        "unknown": (
            "This link is not valid",
            '<p role="alert">Perhaps part of it was lost on the way: copy all of it from the email.</p>',
        ),
    }
)


def page(name: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """One of the pages as an answer."""
    title, content = _PAGES[name]
    text = _SHELL.replace("{title}", title).replace("{style}", _STYLE).replace("{content}", content)
    return web.Response(text=text, content_type="text/html", status=status, headers={**PAGE_HEADERS, **(headers or {})})
