"""Webhooks: templates to one HTTP request, kept as JSON."""

import re
from typing import Final

from channels.channel import Channel, Envelope, Render, Request, Skipped
from channels.render.engine import RenderContext, Renderer
from channels.render.errors import TemplateError
from channels.render.field import compile_field
from streams.codec import to_json
from streams.definitions import Message, WebhookMessage

HOST_CHARS_MAX: Final = 253
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST: Final = re.compile(r"https?://(?:[^/?#@]*@)?([A-Za-z0-9.:\[\]_-]+)", re.IGNORECASE)
# What the connection itself decides, or what a repeat is known by.
_OURS: Final = frozenset(
    (
        *("idempotency-key", "host", "content-length", "transfer-encoding", "connection", "keep-alive"),
        *("te", "trailer", "upgrade", "expect", "accept-encoding"),  # codespell:ignore te
    )
)


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse url, header values and body once. Raises RenderError with the place in the template."""
    assert isinstance(message, WebhookMessage)
    url = compile_field(renderer, message.url)
    body = compile_field(renderer, message.body, one_line=False)
    headers = {_header_name(name): compile_field(renderer, value) for name, value in sorted(message.headers.items())}

    def render(envelope: Envelope, context: RenderContext) -> Request:
        target = url(context) or envelope.default_url
        values = {name: value(context) for name, value in headers.items()}
        for name, value in values.items():
            if _CONTROLS.search(value):
                raise Skipped(f"bad_header: {name} has a control character")
        request = {
            "dispatch_id": envelope.dispatch_id,
            "campaign": envelope.campaign,
            "method": message.method,
            "url": target,
            "headers": {**values, "Idempotency-Key": envelope.dispatch_id},
            "body": body(context),
        }
        return Request(envelope.dispatch_id, target, to_json(request), _host(target))

    return render


def _header_name(name: str) -> str:
    """A header that a definition may set. Raises TemplateError for any other."""
    if not _TOKEN.fullmatch(name):
        raise TemplateError("this is no name of a header", name, 0, len(name))
    if name.lower() in _OURS or name.lower().startswith("proxy-"):
        raise TemplateError("this header is set by Headrace, or not to be sent", name, 0, len(name))
    return name


def _host(url: str) -> str:
    """What stands for the endpoint's host and port, to bound the calls to each; empty where it cannot be told."""
    found = _HOST.match(url)
    return found[1].lower()[:HOST_CHARS_MAX] if found else ""


CHANNEL: Final = Channel("webhook", compile_)
