"""Webhooks: templates to one HTTP request, kept as JSON."""

from typing import Final

from channels.channel import Channel, Envelope, Render, Request
from channels.render.engine import RenderContext, Renderer
from streams.codec import to_json
from streams.definitions import Message, WebhookMessage


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse url, header values and body once. Raises RenderError with the place in the template."""
    assert isinstance(message, WebhookMessage)
    url = renderer.compile(message.url, one_line=True)
    body = renderer.compile(message.body)
    headers = {name: renderer.compile(value, one_line=True) for name, value in sorted(message.headers.items())}

    def render(envelope: Envelope, context: RenderContext) -> Request:
        request = {
            "dispatch_id": envelope.dispatch_id,
            "campaign": envelope.campaign,
            "method": message.method,
            "url": url.render(context),
            "headers": {
                **{name: value.render(context) for name, value in headers.items()},
                "Idempotency-Key": envelope.dispatch_id,
            },
            "body": body.render(context),
        }
        return Request(envelope.dispatch_id, str(request["url"]), to_json(request))

    return render


CHANNEL: Final = Channel("webhook", compile_)
