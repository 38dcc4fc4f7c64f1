"""The log channel: a line of text instead of a message, for a workspace without a provider."""

from typing import Final

from channels.channel import Channel, Envelope, Render, Request
from channels.render.engine import RenderContext, Renderer
from streams.codec import to_json
from streams.definitions import LogMessage, Message


def compile_(message: Message, renderer: Renderer) -> Render:
    """Parse the text once. Raises RenderError with the place in the template."""
    assert isinstance(message, LogMessage)
    text = renderer.compile(message.text)

    def render(envelope: Envelope, context: RenderContext) -> Request:
        line = {
            "dispatch_id": envelope.dispatch_id,
            "campaign": envelope.campaign,
            "text": text.render(context),
        }
        return Request(envelope.dispatch_id, "", to_json(line))

    return render


CHANNEL: Final = Channel("log", compile_)
